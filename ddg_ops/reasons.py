"""Reasons and outcomes in groups: the same trouble in many files is told once."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ddg_ops.screen import Screen, ago, utc

SHOWN_GROUPS = 30
MAX_GROUPS = 1_000  # kept apart: a hostile job may write a new reason into every file

# What differs from file to file where the trouble is the same; limits and names are not of it
OF_THE_FILE = re.compile(
    r"""
      (?<=timestamp\ )\d+(?=\ is\ ) | \d+(?=\ s\ (?:old|ahead),)
    | (?<=the\ number\ )[^,:]+ | (?<=the\ string\ )"(?:[^"\\]|\\.)*"(?:\.{3})?
    | (?<="tags":\ )\["(?:[^"\\]|\\.)*"\]
    | (?<=line\ )\d+ | (?<=column\ )\d+ | (?<=byte\ )\d+ | (?<=object\ )\d+(?=\ of\ the\ array)
    | (?<=the\ tag\ )"(?:[^"\\]|\\.)*"(?:\.{3})? | \b\d+(?=\ tags,)
    | (?<=received\ )\d+\ times?(?=;) | (?<=--since\ )\S+   # the hint in place of a reason
    """,
    re.VERBOSE,
)
TOO_OLD = re.compile(r"(?:[^:]+: )?(?:the timestamp|timestamp \d+) is \d+ s old, .*")


@dataclass
class Group:
    """Things of one kind; reason and place are those of an example, whole and true."""

    title: str
    reason: str
    where: str
    oldest: float = float("inf")  # epoch seconds
    newest: float = float("-inf")
    count: int = 0

    def document(self, title: str) -> dict[str, Any]:
        """Return the group for a machine; its title is called so."""
        shown = {"count": self.count, title: self.title, "reason": self.reason}
        if self.oldest <= self.newest:
            shown |= {"oldest": utc(self.oldest), "newest": utc(self.newest)}
        return shown | {"example": self.where}


class Groups:
    """Groups by a title and the kind of a reason, the largest first."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], Group] = {}

    def add(self, title: str, reason: str, where: str, at: float | None = None) -> None:
        """Count one more."""
        key = (title, OF_THE_FILE.sub("_", reason))
        if key not in self._groups and len(self._groups) >= MAX_GROUPS:
            key, title, reason = ("", ""), "of other kinds", ""
        group = self._groups.setdefault(key, Group(title, reason, where))
        group.count += 1
        if at is not None:
            group.oldest, group.newest = min(group.oldest, at), max(group.newest, at)

    def __iter__(self) -> Iterator[Group]:
        return iter(sorted(self._groups.values(), key=lambda group: -group.count))

    def say(self, screen: Screen, now: float = 0) -> None:
        """Print the largest groups; of what came at a known time that too."""
        groups = list(self)
        for group in groups[:SHOWN_GROUPS]:
            screen.say(f"{group.count:>6,}  {group.title}", "bold")
            times = dict.fromkeys((group.oldest, group.newest) if group.newest > 0 else ())
            when = " to ".join(ago(each, now) for each in times)
            lines = [group.reason, when, f"such as {group.where}" if group.reason else ""]
            for line, style in zip(lines, ("", "dim", "dim"), strict=True):
                if line:
                    screen.say(f"        {line}", style)
        if len(groups) > SHOWN_GROUPS:
            screen.say(f"and {len(groups) - SHOWN_GROUPS:,} more groups; --json has all.")
