"""All faults of an object in a stats file, and what to do about them."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ddg_json_file import kind, show

MAX_REASON_BYTES = 1024  # on a message of the rejected queue
MAX_FAULTS = 10  # of an object that a reason lists; the rest are counted

_PLACE_BYTES = 40  # for a prefix such as "object 350000 of the mapping's result: "
_SHOWN_CHARACTERS = 20  # of a string value: it may be anything
_TAG_BYTES = 100  # of the tags that a reason proposes
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII
)
_NAMES = (
    "start with a letter; use A-Z, a-z, 0-9, _ and . only, with no _ at the end, next to another _ "
    "or next to a dot; at most 200 characters"
)


@dataclass
class Faults:
    """The faults of one object, in the file's order."""

    show_values: bool = True
    has_timestamp: bool = True
    listed: list[str] = field(default_factory=list)
    more: int = 0

    def __str__(self) -> str:
        """List as many faults as fit a message of the rejected queue, and count the rest."""
        total = self.more + len(self.listed)
        texts = (
            "; ".join(self.listed[:shown]) + (f"; and {total - shown} more" * (shown < total))
            for shown in range(len(self.listed), 0, -1)
        )
        return next(text for text in texts if len(text) <= MAX_REASON_BYTES - _PLACE_BYTES)

    def add(self, words: str | Callable[[], str]) -> None:
        """Add a fault; where there may be a million, a function tells those that are listed."""
        if len(self.listed) < MAX_FAULTS:
            self.listed.append(words if isinstance(words, str) else words())
        else:
            self.more += 1

    def kind(self, value: object) -> str:
        """Return the type of a value, with the start of a string or the digits of a number."""
        if isinstance(value, str):
            return self.string(value)
        if self.show_values and isinstance(value, int | float) and not isinstance(value, bool):
            return f"the number {show(value)}"
        return kind(value)

    def string(self, value: str, noun: str = "string") -> str:
        """Return a string of the file as a reason names it, such as: the tag "x"."""
        return f"the {noun} {show(value, _SHOWN_CHARACTERS)}" if self.show_values else f"a {noun}"

    def value(self, name: str, value: object) -> str:
        """Return why a value can't be a metric, and what to do."""
        if type(value) is int or type(value) is float:
            null = ", or write null" if self.show_values else ""  # null refuses a mapped file
            return f"{show(name)} is not a number, or too large for a float: leave it out{null}"
        return f"{show(name)} is {self.kind(value)}: {self._advice(name, value)}"

    def _advice(self, name: str, value: object) -> str:
        match value:
            case bool():
                text, advice = str(value).lower(), "write 1 or 0, drop it, or make it a tag"
            case str() if _NUMBER.fullmatch(value):
                return "write it without the quotes, or drop it"
            case str() if time := _TIME.fullmatch(value):
                start = ("drop it, " * self.has_timestamp) + ("" if time[1] else "add its zone, ")
                return f'{start}rename it to "timestamp", or map it'
            case "":
                return "drop it"
            case str():
                text, advice = value, "drop it, or make it a tag"
            case _:
                return "drop it, or map it"
        tags = json.dumps([f"{name}:{text}"])
        is_tag = len(text) <= _SHOWN_CHARACTERS and text.isprintable() and len(tags) <= _TAG_BYTES
        return f'{advice}: "tags": {tags}' if is_tag and self.show_values else advice


def is_numeric(value: object) -> bool:
    """Return whether a value is a number, or is written in place of one: true, "12"."""
    if isinstance(value, str):
        return bool(_NUMBER.fullmatch(value))
    return isinstance(value, int | float)


def better_name(name: str, prefix: str) -> str:
    """Return what to do about a metric name: write a similar one, or follow the rules.

    prefix: the metric prefix, which the file doesn't contain.
    """
    good = re.sub("[^A-Za-z0-9_.]+|__+", "_", name[:201]).lstrip("0123456789_.")
    good = re.sub(r"_*\._*", ".", re.sub("__+", "_", good)).rstrip("_")
    rest = good.removeprefix(prefix)
    return f"write {show(rest)}" if rest and len(good) <= 200 else _NAMES
