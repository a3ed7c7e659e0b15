"""Propose a mapping to start with: a document in, a JMESPath expression out.

The mapping keeps the numbers, renames names that can't be a metric's, and finds the time. Each
element of a list of objects becomes a row, with its short strings as tags; so does each member of
an object whose names are data.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, compress, count
from typing import Any, NamedTuple

from ddg_stats_file import MAX_MAPPED_SERIES, epoch_seconds, is_number

MAX_DEPTH = 8  # levels of nested objects
MAX_TABLES = 20
MAX_CELLS = 2_000_000  # of a table: rows times paths
MAX_PROPOSED_TAGS = 4  # per row: each may multiply the custom metrics
MAX_TAG_VALUE = 100  # characters; longer strings are messages
MAX_NAME = 160  # characters of a metric name, with room for a number and a group
EARLIEST_TIME = 10**9  # smaller numbers are no times: 2001 in epoch seconds

_PLAIN = re.compile("[A-Za-z_][A-Za-z0-9_]*")  # a name that needs no quotes in JMESPath
_DATA = re.compile("[^A-Za-z0-9_.-]|^$")  # in a name that is data
_ID = re.compile(r"[\d\s.,:+-]*|\d{4}-\d\d-\d\d.*|[0-9A-Fa-f-]{16,}|.*://.*")  # no tag: per run
_TIME_NAMES = [  # the best first
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        "(timestamp|time|ts|date)$",
        ".*(finish|end|complet|stop)",
        ".*(generat|creat|updat|stamp)",
        ".*(start|begin|date|at$)",
    )
]
_TAKEN = object()  # replaces a table
_NO_TIME_NAME = re.compile(".*(expir|valid|until|next|deadline)", re.IGNORECASE)

Path = tuple[str, ...]
Columns = dict[Path, list[Any]]  # a value per row, or None


class Table(NamedTuple):
    """Rows of a document that may have metrics."""

    path: Path  # of their list or object
    rows: Sequence[Any]
    keys: Sequence[str] = ()  # the rows' names, if these are data
    is_document: bool = False  # its single row is the document without its tables

    def member(self, path: Path) -> str:
        """Return the expression for a member of a row."""
        return _join("[1]" if self.keys else "", path)


def propose(document: object, accepts: Callable[[str], bool]) -> str | None:
    """Return a mapping that makes metrics from a document; None if it has no suitable numbers.

    accepts: whether the submitter would take the document with a mapping.
    """
    tables: list[Table] = []
    rest = _take_tables(document, (), tables)
    time = ""
    if isinstance(rest, dict):
        tables.insert(0, Table((), [rest], is_document=True))
        found = _find_time(_read_columns([rest]))
        time = _join("root()", found) if found else ""
    parts: list[str] = []
    for table in tables[:MAX_TABLES]:
        for expression in _propose_table(table, time, is_first=not parts):
            if accepts(_combine([*parts, expression])):
                parts.append(expression)
                break
    return _combine(parts) if parts else None


def _combine(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"[{', '.join(parts)}][]"


# --- Read the document ---


def _take_tables(value: object, path: Path, tables: list[Table]) -> object:
    """Collect the tables in a document; return the rest of it."""
    if isinstance(value, list) and any(isinstance(element, dict) for element in value):
        tables.append(Table(path, value))
    if not isinstance(value, dict):
        return value
    if has_data_for_names := _has_data_for_names(value):
        tables.append(Table(path, [*value.values()], [*value]))
    if has_data_for_names or len(path) == MAX_DEPTH:
        return _TAKEN
    return {name: _take_tables(member, (*path, name), tables) for name, member in value.items()}


def _has_data_for_names(value: Mapping[str, Any]) -> bool:
    """Return whether an object's names are data: its members are numbers or similar objects."""
    members = [*value.values()]
    odd = sum(bool(_DATA.search(name)) for name in value)
    if all(map(is_number, members)):
        return 2 * odd >= len(members) > 0
    if not all(isinstance(member, dict) for member in members):
        return False
    alike = set.intersection(*map(set, members))
    strings = [name for name in alike if all(isinstance(each[name], str) for each in members)]
    return odd > 0 or (len(members) > 1 < len(alike) and bool(strings))


def _read_columns(rows: Sequence[Any]) -> Columns:
    """Return the values in rows by their paths; {} if there are too many."""
    paths = dict.fromkeys(chain.from_iterable(_leaves(row, ()) for row in rows))
    if len(paths) * len(rows) > MAX_CELLS:
        return {}
    return {path: [_look_up(row, path) for row in rows] for path in paths}


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, dict) and value and len(path) < MAX_DEPTH:
        for name, member in value.items():
            yield from _leaves(member, (*path, name))
    else:
        yield path


def _look_up(value: Any, path: Path) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _is_metric(path: Path, values: Iterable[Any]) -> bool:
    """Return whether a column has numbers that aren't times."""
    given = [value for value in values if value is not None]
    return (
        len(given) > 0
        and all(map(is_number, given))
        and len(".".join(path)) <= MAX_NAME
        and not (_rank(path) and min(given) >= EARLIEST_TIME)
    )


def _find_time(columns: Columns) -> Path | None:
    """Return the best member that has the time in every row."""
    times = [
        path
        for path, values in columns.items()
        if path and not _NO_TIME_NAME.match(path[-1]) and all(_is_time(path, v) for v in values)
    ]
    order = {path: (_rank(path) or len(_TIME_NAMES) + 1, len(path)) for path in times}
    return min(times, key=order.__getitem__, default=None)


def _rank(path: Path) -> int:
    """Return how well a member's name fits the time: 1 is best, 0 is not at all."""
    ranks = (rank for rank, name in enumerate(_TIME_NAMES, 1) if path and name.match(path[-1]))
    return next(ranks, 0)


def _is_time(path: Path, value: object) -> bool:
    """Return whether a value is a time; a number needs the name of one."""
    if not isinstance(value, str) and not (
        _rank(path) and is_number(value) and value >= EARLIEST_TIME
    ):
        return False
    try:
        return epoch_seconds(value) > 0
    except ValueError:
        return False


def _is_tag(value: object) -> bool:
    """Return whether a value is a string that is useful as a tag."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_TAG_VALUE
        and value.isprintable()
        and not _ID.fullmatch(value)
    )


# --- Write the mapping ---


def _propose_table(table: Table, time: str, *, is_first: bool) -> Iterator[str]:
    """Yield expressions for a table, the best first.

    The last one is of the last row, because rows may have the same tags and second.
    """
    columns = _read_columns(table.rows)
    numbers = {path: values for path, values in columns.items() if _is_metric(path, values)}
    good = [any(value is not None for value in row) for row in zip(*numbers.values(), strict=True)]
    if not 0 < sum(good) * len(numbers) <= MAX_MAPPED_SERIES:
        return
    columns = {path: [*compress(values, good)] for path, values in columns.items()}
    found = _find_time(columns)
    extras = {
        "timestamp": table.member(found) if found else time,
        "tags": _render(_find_tags(table, columns)),
    }
    extras = {name: expression for name, expression in extras.items() if expression}
    metrics: dict[str, str] = {}
    for path in numbers:
        name = _free(_metric_name(path or table.path[-1:]), {*metrics, "timestamp", "tags"})
        metrics[name] = _maybe(table.member(path), columns[path])
    group = "" if is_first else _free("_".join(map(_metric_word, table.path))[:40], extras)
    bodies = [_render(extras | ({group: _render(metrics)} if group else metrics))]
    others = chain.from_iterable(columns[path] for path in columns.keys() - numbers.keys())
    if len(numbers) > 1 and not any(value is _TAKEN or is_number(value) for value in others):
        every = f"numbers({'[1]' if table.keys else '@'})"
        merged = f"merge({every}, {_render(extras)})" if extras else every
        bodies.insert(0, _render(extras | {group: every}) if group else merged)
    always = [path for path in numbers if None not in columns[path]]
    condition = " || ".join(map(table.member, always[:1] or numbers))
    for start in _sources(table, "" if all(good) else f"[?{condition}]"):
        yield from (start + body for body in bodies)


def _sources(table: Table, condition: str) -> list[str]:
    """Return the beginnings of expressions for all rows and for the last one."""
    if table.is_document:
        return [""]
    source = _join("", table.path)
    if table.keys:
        source = f"items({source or '@'})"
    last = f"{source}{condition} | [-1]." if condition else f"{source}[-1]."
    return [f"{source}{condition or '[*]'}.", last]


def _find_tags(table: Table, columns: Columns) -> dict[str, str]:
    """Return a table's tags: their expressions by name, tags that differ between rows first."""
    tags = {"name": "[0]"} if table.keys else {}
    found: dict[tuple[str | None, ...], Path] = {}  # the first of columns with the same values
    for path, values in columns.items():
        given = [value for value in values if value is not None]
        if given and all(map(_is_tag, given)) and (len(path) == 1 or not table.is_document):
            found.setdefault(tuple(values), path)
    for known, path in sorted(found.items(), key=lambda item: len({*item[0]}) == 1):
        if len(tags) < MAX_PROPOSED_TAGS:
            name = _free(_metric_name((_metric_word(path[-1]),)).lower(), {*tags, "job"})
            tags[name] = _maybe(table.member(path), known)
    return tags


def _maybe(expression: str, values: Iterable[Any]) -> str:
    return f"maybe({expression})" if None in values else expression


def _free(name: str, taken: Iterable[str]) -> str:
    """Return a name, with a number if it is taken."""
    return next(
        each for each in chain([name], (f"{name}_{n}" for n in count(2))) if each not in taken
    )


def _metric_name(path: Path) -> str:
    """Return a path as a metric name that Datadog keeps."""
    words = map(_metric_word, ".".join(path).split("."))
    name = ".".join(filter(None, words)) or "value"
    return name if name[0].isalpha() else f"n{name}"


def _metric_word(name: str) -> str:
    return re.sub("[^A-Za-z0-9]+", "_", name).strip("_")


def _render(members: Mapping[str, str]) -> str:
    """Return a multi-select hash of JMESPath's; "" without members."""
    inside = ", ".join(f"{_identifier(name)}: {made}" for name, made in members.items())
    return inside and f"{{{inside}}}"


def _join(prefix: str, path: Path) -> str:
    return ".".join([*filter(None, [prefix]), *map(_identifier, path)])


def _identifier(name: str) -> str:
    plain = _PLAIN.fullmatch(name)
    return name if plain else json.dumps(name, ensure_ascii=not name.isprintable())
