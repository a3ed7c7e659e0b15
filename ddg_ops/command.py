"""Commands as ddg-ops has them: their help ends with examples that can be typed."""

from collections.abc import Sequence
from typing import Any

import click


class Command(click.Command):
    """A command whose help ends with lines to type; of each what stands behind its name."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are: wrapped they couldn't be copied."""
        formatter.write("\nExamples:\n")
        for line in self.examples:
            formatter.write(f"  {ctx.command_path} {line}".rstrip() + "\n")


class Group(Command, click.Group):
    """A command of commands, with examples too."""
