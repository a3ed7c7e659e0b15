"""ddg-ops, the operator's command. Only what starts it is imported at once: the rest takes time."""

import os
import signal
import sys


def main() -> None:
    """Run this process's command line, and end the process with the exit code."""
    code = 3
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # gives back what is in hand
        from ddg_ops.cli import cli

        cli.main()
    except (ImportError, SyntaxError) as error:
        print(
            f"ddg-ops: {error}. Run `make venv`, and then .venv/bin/ddg-ops, not another Python.",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print("ddg-ops: interrupted.", file=sys.stderr)
        code = 130
    except SystemExit as end:
        code = int(str(end.code))
    os._exit(code)  # a thread that hangs would hold it up, and a second Ctrl-C show a traceback
