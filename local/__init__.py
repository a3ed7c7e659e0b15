"""The local run: everything that runs the pipeline on one machine."""

import logging

logging.getLogger("werkzeug").setLevel(logging.ERROR)  # otherwise it prints every request
