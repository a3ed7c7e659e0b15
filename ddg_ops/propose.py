"""Propose a mapping to start with: a document in, a JMESPath expression out.

The mapping keeps the numbers, renames names that can't be a metric's, and finds the time. Each
element of a list of objects becomes a row, with its short strings as tags; so does each member of
an object whose names are data.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain, compress, count
from typing import Any, NamedTuple

from ddg_stats_file import (
    MAX_MAPPED_SERIES,
    METRIC_NAME,
    epoch_seconds,
    is_number,
    normalise_tag,
)

MAX_DEPTH = 8  # levels of nested objects
MAX_CELLS = 2_000_000  # of a table: rows times paths
MAX_PROPOSED_TAGS = 4  # per row: each may multiply the custom metrics
MAX_TAG_VALUE = 100  # characters; longer strings are messages
MAX_NAME = 160  # characters of a metric name, with room for a number and another name

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
_NO_TIME_NAME = re.compile(".*(expir|valid|until|next|deadline)", re.IGNORECASE)
_SCALES = (1, 10**3, 10**6, 10**9)  # of times in s, ms, us and ns
_CONTRACT = ("timestamp", "tags")  # names that aren't metrics
_TAKEN = object()  # replaces a table

Path = tuple[str, ...]
Columns = dict[Path, list[Any]]  # a value per row, or None
Tree = dict[str, Any]  # the result: expressions by name, or trees of them


class Table(NamedTuple):
    """Rows of a document that may have metrics."""

    path: Path  # of their list or object
    rows: Sequence[Any]
    keys: Sequence[str] = ()  # the rows' names, if these are data
    is_list: bool = True

    def member(self, path: Path) -> str:
        """Return the expression for a member of a row."""
        return _join(("[1]" if self.keys else ""), path)


class Time(NamedTuple):
    """A member that has the time in every row."""

    path: Path
    seconds: list[int]  # per row


class Part(NamedTuple):
    """An expression that makes metrics from a table."""

    expression: str
    names: set[str]  # of metrics
    series: int


def propose(document: object) -> str | None:
    """Return a mapping that makes metrics from a document; None if it has no suitable numbers."""
    tables: list[Table] = []
    time = None
    rest = _take_tables(document, (), tables)
    if isinstance(rest, dict):
        tables.insert(0, Table((), [rest], is_list=False))
        time = _find_time(_columns(tables[0]))
    parts: list[Part] = []
    for table in tables:
        used = set().union(*(part.names for part in parts))
        part = _propose_table(table, time, used)
        if part and part.series + sum(each.series for each in parts) <= MAX_MAPPED_SERIES:
            parts.append(part)
    expressions = [part.expression for part in parts]
    if len(expressions) < 2:
        return expressions[0] if expressions else None
    return f"[{', '.join(expressions)}][]"


# --- Read the document ---


def _take_tables(value: object, path: Path, tables: list[Table]) -> object:
    """Collect the tables in a document; return the rest of it."""
    if isinstance(value, list) and any(isinstance(element, dict) for element in value):
        tables.append(Table(path, value))
    if not isinstance(value, dict):
        return value
    if _has_data_for_names(value):
        tables.append(Table(path, [*value.values()], [*value], is_list=False))
        return _TAKEN
    if len(path) == MAX_DEPTH:
        return _TAKEN
    return {name: _take_tables(member, (*path, name), tables) for name, member in value.items()}


def _has_data_for_names(value: dict[str, Any]) -> bool:
    """Return whether an object is a table by its names: of numbers, or of similar objects."""
    members = [*value.values()]
    odd = sum(bool(_DATA.search(name)) for name in value)
    if all(map(is_number, members)):
        return 2 * odd >= len(members) > 0
    if not all(isinstance(member, dict) for member in members):
        return False
    alike = set.intersection(*map(set, members))
    strings = [name for name in alike if all(isinstance(each[name], str) for each in members)]
    return odd > 0 or (len(members) > 1 < len(alike) and bool(strings))


def _columns(table: Table) -> Columns:
    """Return the values in a table's rows by their paths; {} if there are too many."""
    paths = dict.fromkeys(chain.from_iterable(_leaves(row, ()) for row in table.rows))
    if len(paths) * len(table.rows) > MAX_CELLS:
        return {}
    return {path: [_look_up(row, path) for row in table.rows] for path in paths}


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


def _numbers(columns: Columns) -> Columns:
    """Return the columns of numbers, without times."""
    found = {}
    for path, values in columns.items():
        given = [value for value in values if value is not None]
        if not given or not all(map(is_number, given)) or len(".".join(path)) > MAX_NAME:
            continue
        if _rank(path) is None or not all(
            any(_is_epoch(value, scale) for scale in _SCALES) for value in given
        ):
            found[path] = values
    return found


def _find_time(columns: Columns) -> Time | None:
    """Return the best member that has the time in every row."""
    times: dict[tuple[int, ...], tuple[Path, list[int]]] = {}
    for path, values in columns.items():
        rank = _rank(path)
        seconds = [_read_time(value, rank is not None) for value in values]
        known = [each for each in seconds if each is not None]
        if path and not _NO_TIME_NAME.match(path[-1]) and len(known) == len(values):
            times[len(_TIME_NAMES) if rank is None else rank, len(path), len(times)] = path, known
    return Time(*times[min(times)]) if times else None


def _rank(path: Path) -> int | None:
    """Return how well a member's name fits the time; 0 is best."""
    ranks = (rank for rank, name in enumerate(_TIME_NAMES) if path and name.match(path[-1]))
    return next(ranks, None)


def _read_time(value: object, is_named: bool) -> int | None:
    """Return a time in epoch seconds, or None. A number needs the name of a time."""
    if not isinstance(value, str) and not (is_named and is_number(value) and _is_epoch(value, 1)):
        return None
    try:
        return epoch_seconds(value)
    except ValueError:
        return None


def _is_epoch(value: float, scale: int) -> bool:
    """Return whether a number may be a time since 2001; scale: units per second."""
    return 10**9 <= value / scale < 3 * 10**9


# --- Write the mapping ---


def _propose_table(table: Table, time: Time | None, used: set[str]) -> Part | None:
    """Return the part for a table, or for its last row if two have the same tags and second.

    time: the document's. used: names of other metrics, which the table's must not repeat.
    """
    numbers = _numbers(_columns(table))
    good = [any(value is not None for value in row) for row in zip(*numbers.values(), strict=True)]
    if not 0 < len(numbers) <= MAX_MAPPED_SERIES or not "".join(table.keys).isprintable():
        return None
    known = table._replace(rows=[*compress(table.rows, good)], keys=[*compress(table.keys, good)])
    source = _join("", table.path)
    if table.keys:
        source = f"items({source or '@'})"
    last = f"{source}[-1]"
    if not all(good):
        bad = good.count(False)
        always = [path for path, values in numbers.items() if values.count(None) == bad]
        source += f"[?{' || '.join(map(table.member, always[:1] or numbers))}]"
        last = f"{source} | [-1]"
    elif table.keys or table.is_list:
        source += "[*]"
    part = _propose_rows(known, source, time, used)
    if part or not table.is_list:
        return part
    return _propose_rows(Table(table.path, known.rows[-1:], is_list=False), last, time, used)


def _propose_rows(table: Table, source: str, time: Time | None, used: set[str]) -> Part | None:
    """Return the part for rows; None if two have the same tags and second.

    source: the expression that the rows come from; "" for the document itself.
    """
    columns = _columns(table)
    tags = _tags(table, columns)
    own_time = _find_time(columns)
    labels = [
        frozenset(
            normalise_tag(f"{tag}:{values[row]}")
            for tag, (_, values) in tags.items()
            if values[row] is not None
        )
        for row in range(len(table.rows))
    ]
    seconds = own_time.seconds if own_time else [0] * len(labels)
    if len({*zip(labels, seconds, strict=True)}) < len(labels):
        return None
    tree: Tree = {"timestamp": "", "tags": ""}
    if own_time:
        tree["timestamp"] = table.member(own_time.path)
    elif time:
        tree["timestamp"] = _join("root()", time.path)
    if tags:
        tree["tags"] = _render({tag: expression for tag, (expression, _) in tags.items()})
    extras = {name: expression for name, expression in tree.items() if expression}
    numbers = _numbers(columns)
    if not source and len(numbers) > 1 and _is_clean((), table, columns):
        names = {path: ".".join(path) for path in numbers}
        expression = f"merge(numbers(@), {_render(extras)})" if extras else "numbers(@)"
    else:
        names = _add_metrics(tree, table, columns)
        metrics = {name: made for name, made in tree.items() if name not in _CONTRACT}
        if not used.isdisjoint(names.values()):
            group = next(
                each
                for each in _numbered(_words(table.path[-1:] or ("rows",))[0][:20])
                if each not in _CONTRACT and used.isdisjoint(f"{each}.{n}" for n in names.values())
            )
            metrics = {group: metrics}
            names = {path: f"{group}.{name}" for path, name in names.items()}
        expression = f"{source}.{_render(extras | metrics)}".removeprefix(".")
    series = {
        (name, label)
        for path, name in names.items()
        for value, label in zip(numbers[path], labels, strict=True)
        if value is not None
    }
    return Part(expression, {*names.values()}, len(series))


def _tags(table: Table, columns: Columns) -> dict[str, tuple[str, Sequence[str | None]]]:
    """Return a table's tags: their expressions, and their values per row."""
    tags: dict[str, tuple[str, Sequence[str | None]]] = {}
    if table.keys:
        tags["name"] = ("[0]", table.keys)
    found: dict[tuple[str | None, ...], Path] = {}  # the first of columns with the same values
    for path, values in columns.items():
        if (len(path) == 1 or table.path) and all(each is None or _is_tag(each) for each in values):
            found.setdefault(tuple(values), path)
    found.pop((None,) * len(table.rows), None)
    for known, path in sorted(found.items(), key=lambda item: len({*item[0]}) == 1):
        if len(tags) < MAX_PROPOSED_TAGS:
            expression = table.member(path)
            word = _words(path[-1:])[0].lower()
            name = next(each for each in _numbered(word) if each not in (*tags, "job"))
            tags[name] = (f"maybe({expression})" if None in known else expression, known)
    return tags


def _is_tag(value: object) -> bool:
    """Return whether a value is a string that is useful as a tag."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_TAG_VALUE
        and value.isprintable()
        and not _ID.fullmatch(value)
    )


def _add_metrics(tree: Tree, table: Table, columns: Columns) -> dict[Path, str]:
    """Add metrics to a tree; return their names by their paths."""
    names: dict[Path, str] = {}
    numbers = _numbers(columns)
    for path in numbers:
        if path in names:
            continue
        for group in (path[:length] for length in range(1, len(path))):
            inside = [each for each in numbers if each[: len(group)] == group]
            if len(inside) > 1 and _is_clean(group, table, columns):
                name = _insert(tree, _words(group), f"numbers({table.member(group)})")
                names |= {each: ".".join((name, *each[len(group) :])) for each in inside}
                break
        else:
            expression = table.member(path)
            if None in numbers[path]:
                expression = f"maybe({expression})"
            names[path] = _insert(tree, _words(path or table.path[-1:] or ("value",)), expression)
    return names


def _is_clean(group: Path, table: Table, columns: Columns) -> bool:
    """Return whether numbers() would return exactly the numbers of an object's columns."""
    numbers = _numbers(columns)
    names = []
    for path, values in columns.items():
        inside = path[len(group) :]
        if path[: len(group)] != group:
            continue
        if path in numbers and (group or path[0] not in _CONTRACT):
            names.append(".".join(inside))
        elif any(
            value is _TAKEN or type(value) in (int, float) or (isinstance(value, dict) and value)
            for value in values
        ):
            return False
    return (
        all(isinstance(_look_up(row, group), dict) for row in table.rows)
        and all(METRIC_NAME.fullmatch("x." * len(group) + name) for name in names)
        and len({*names}) == len(names)
    )


def _insert(tree: Tree, words: Sequence[str], expression: str) -> str:
    """Add an expression to a tree, under another name if its own is taken; return the name."""
    taken = []
    for word in words[:-1]:
        taken.append(next(n for n in _numbered(word) if isinstance(tree.get(n, {}), dict)))
        tree = tree.setdefault(taken[-1], {})
    taken.append(next(n for n in _numbered(words[-1]) if n not in tree))
    tree[taken[-1]] = expression
    return ".".join(taken)


def _numbered(word: str) -> Iterator[str]:
    """Yield a word, then the word with numbers."""
    yield word
    yield from (f"{word}_{number}" for number in count(2))


def _words(path: Path) -> list[str]:
    """Return a path as the words of a metric name that Datadog keeps."""
    parts = (re.sub("[^A-Za-z0-9]+", "_", part).strip("_") for part in ".".join(path).split("."))
    words = [part for part in parts if part] or ["value"]
    return [words[0] if words[0][0].isalpha() else f"n{words[0]}", *words[1:]]


def _render(tree: Tree) -> str:
    """Return a tree as JMESPath's multi-select hash."""
    members = (
        f"{_identifier(name)}: {made if isinstance(made, str) else _render(made)}"
        for name, made in tree.items()
    )
    return f"{{{', '.join(members)}}}"


def _join(prefix: str, path: Path) -> str:
    return ".".join([*filter(None, [prefix]), *map(_identifier, path)])


def _identifier(name: str) -> str:
    plain = _PLAIN.fullmatch(name)
    return name if plain else json.dumps(name, ensure_ascii=not name.isprintable())
