"""ddg-ops, the operator's command. The imports are late, so that Ctrl-C always finds main()."""

import os
import signal
import sys


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    code = 3
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # gives messages back, as Ctrl-C
        from ddg_ops.cli import cli

        cli.main()
    except (ImportError, SyntaxError) as error:
        print(
            f"ddg-ops: {error}. Run `make venv`, then use .venv/bin/ddg-ops.",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print("ddg-ops: interrupted.", file=sys.stderr)
        code = 130
    except SystemExit as end:
        code = int(str(end.code))
    os._exit(code)  # don't wait for threads that hang, nor flush output that nobody reads
