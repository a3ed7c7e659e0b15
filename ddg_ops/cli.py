"""The command line: its commands, its errors and its exit codes."""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from botocore.exceptions import BotoCoreError, ClientError

from ddg_ops import queues
from ddg_ops.aws import explain
from ddg_ops.backfill import backfill
from ddg_ops.check import check
from ddg_ops.jobs import jobs
from ddg_ops.log import tail
from ddg_ops.pause import pause, resume
from ddg_ops.resend import send_files
from ddg_ops.screen import FINE, INTERRUPTED, UNABLE, USAGE, Command, Screen, Stop
from ddg_ops.validate import validate
from ddg_ops.where import where


class Group(Command, click.Group):
    """A command with commands of its own."""


class CommandLine(Group):
    """The whole command line: every error ends in one line on stderr and an exit code."""

    def main(self, args: Sequence[str] | None = None, **_: Any) -> NoReturn:  # type: ignore[override]  # click's may return
        """Run a command line and exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        screen = Screen("--json" in arguments)
        problem, code = "", FINE
        try:
            with self.make_context("ddg-ops", arguments, obj=screen) as context:
                code = self.invoke(context)
            sys.stdout.flush()
        except click.exceptions.Exit as end:  # --help
            code = end.exit_code
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.message, err=True)
            code = USAGE
        except click.UsageError as error:
            problem, code = explain_usage(error), USAGE
        except Stop as stop:
            problem, code = str(stop), stop.exit_code
        except (ClientError, BotoCoreError) as error:
            problem, code = explain(error), UNABLE
        except BrokenPipeError:
            pass  # `| head` has read enough
        except OSError as error:
            problem, code = f"{error.filename or 'output'}: {error.strerror or error}.", UNABLE
        except KeyboardInterrupt:
            problem, code = "interrupted. Nothing is lost: run the command again.", INTERRUPTED
        if problem:
            screen.fail(problem, code)
        sys.exit(code)


def explain_usage(error: click.UsageError) -> str:
    """Explain a usage error in one line."""
    path = error.ctx.command_path if error.ctx else "ddg-ops"
    if isinstance(error, click.NoSuchOption) and error.ctx and isinstance(error.ctx.command, Group):
        option = error.option_name
        return f"no option {option} here. Options go after the command: {path} COMMAND {option} ..."
    return f"{error.format_message()} See {path} --help."


@click.group(
    cls=CommandLine,
    name="ddg-ops",
    examples=["validate nightly.json", "check --canary", "rejected list", "tail"],
)
def cli() -> None:
    """Operate the pipeline: check it, list what was refused, send it again, backfill.

    \b
    Exit codes:
      0    all is well
      1    something is wrong with the pipeline or with files
      2    the command line is wrong
      3    the command couldn't find out or finish (no stack, credentials, permission, network)
      130  Ctrl-C
    """


@cli.group(cls=Group, examples=["list", "show --job nightly", "replay --yes"])
def rejected() -> None:
    """List, show, resend, save or discard refused files."""


@cli.group(cls=Group, examples=["list", "show --job nightly", "replay --yes"])
def dead() -> None:
    """The same for dead letters: files that were retried for too long."""


for command in (validate, check, where, jobs, tail, pause, resume, backfill):
    cli.add_command(command)
for command in queues.COMMANDS:
    rejected.add_command(command)
    dead.add_command(command)
rejected.add_command(send_files)
