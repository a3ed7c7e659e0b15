"""The stats file, the contract with the jobs: JSON values in, samples or a reason out.

Pure: no clock, no environment, no network. The submitter reads every file with it and
`stats.schema.json` says the same for machines. What is refused is refused whole, because
half a file in Datadog looks like a healthy job.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from functools import lru_cache
from sys import float_info
from typing import NamedTuple

import ddg_json_file
from ddg_json_file import EXAMPLE, TOO_MANY_NAMES, RetryError, StatsFileError, kind, show

MAX_DEPTH = 32  # nested objects; the name of a deeper one would hardly fit 200 characters
MAX_MAPPED_SERIES = 1_000  # a file's: a mapping makes a custom metric of a run id too easily
MAX_TAGS = 100  # Datadog drops a series of more behind a 202 (an organisation's default)
MAX_AHEAD_SECONDS = 600  # Datadog drops points more than 10 minutes ahead, behind a 202
LATEST_TIMESTAMP = 10**11  # the year 5138: what lies beyond was written in milliseconds

# Datadog keeps such a name. Any other it cuts or rewrites, and two names may become one series
# (metrics/custom_metrics docs; NormMetricNameParse in datadog-agent, pkg/util/metricname).
METRIC_NAME = re.compile(r"(?!.*(?:__|_\.|\._|_$))[A-Za-z][A-Za-z0-9_.]{0,199}")
UNPREFIXED = "ddg."  # names of the pipeline's own metrics: no prefix stands before them
MAX_TAG_CHARACTERS = 200  # Datadog cuts a longer tag (getting_started/tagging docs)

_MAX = float_info.max  # of a number: Datadog stores floats
_NOT_IN_ASCII_TAG = re.compile("[^a-z0-9_:./-]")
_TOO_DEEP = f"objects are nested deeper than {MAX_DEPTH}. Write flatter ones."

Number = int | float


class Sample(NamedTuple):
    """The metrics of one second under one set of tags."""

    timestamp: int  # epoch seconds
    tags: tuple[str, ...]  # normalised, sorted, each once
    values: dict[str, Number]  # metric name -> gauge


# A document -> how to name the place of an object by its number, and the numbered objects
Mapping = Callable[[object], tuple[str, Iterable[tuple[int, object]]]]


def read_stats_file(
    content: bytes,
    *,
    now: float,
    max_age: int,
    tags: Iterable[str] = (),
    prefix: str = "",
    mapping: Mapping | None = None,
    last_modified: str = "",
) -> list[Sample]:
    """Read one stats file.

    Args:
        content: the object's bytes, plain or gzip; one object, an array of them, or JSON Lines.
        now: epoch seconds, for the window that Datadog takes points of.
        max_age: seconds a timestamp may be old; 0 means no limit.
        tags: normalised tags that every sample carries (constant ones, the job's).
        prefix: stands before each metric's name, but not before one that begins with `ddg.`.
        mapping: makes objects of the contract's shape of the file; None where it has that shape.
        last_modified: an HTTP date, for a mapped object without a timestamp; "" if unknown.

    Returns:
        One sample for each second and set of tags, at least one.

    Raises:
        StatsFileError: anything about the file is not as the contract says.
        RetryError: the mapping can't be applied now, or has needed a date that is unknown.
    """
    shared_tags = frozenset(tags)
    names: dict[str, str] = {}  # names found good, so that each is checked and stored once
    tag_sets: dict[tuple[str, ...], tuple[str, ...]] = {}  # as written -> as sent, likewise
    samples: dict[tuple[int, tuple[str, ...]], dict[str, Number]] = {}
    if mapping:
        place, numbered = mapping(ddg_json_file.read_document(content))
    else:
        place, numbered = ddg_json_file.read_values(content)
    for number, members in numbered:
        try:
            if not isinstance(members, dict):
                raise StatsFileError(f"{kind(members)} stands where an object must, {EXAMPLE}")
            if mapping and "timestamp" not in members:
                members["timestamp"] = read_date(last_modified)
            timestamp = _read_timestamp(members.pop("timestamp", None), now, max_age)
            written = _read_tags(members.pop("tags", None))
            if (sample_tags := tag_sets.get(written)) is None:
                sample_tags = tag_sets[written] = _sample_tags(written, shared_tags)
            values = _read_values(members, names, prefix)
            known = samples.setdefault((timestamp, sample_tags), values)
            if known is not values:
                _add_values(known, values)
        except StatsFileError as error:
            raise StatsFileError(f"{place.format(number)}{error}") from None
    if not samples:
        raise StatsFileError(f"no object in the file. Write at least one, {EXAMPLE}")
    if mapping:
        _check_series(samples.items())
    return [Sample(timestamp, tags, values) for (timestamp, tags), values in samples.items()]


def check_timestamp(timestamp: int, now: float, max_age: int) -> None:
    """Refuse a point outside the window that Datadog takes; it drops those behind a 202.

    Args:
        timestamp, now: epoch seconds. max_age: seconds; 0 means no limit.
    """
    if timestamp - now > MAX_AHEAD_SECONDS:
        raise StatsFileError(
            f"timestamp {timestamp} is {timestamp - now:.0f} s ahead, and Datadog drops points "
            f"more than {MAX_AHEAD_SECONDS} s ahead. Correct the job's clock, upload again."
        )
    if max_age and now - timestamp > max_age:
        raise StatsFileError(
            f"timestamp {timestamp} is {now - timestamp:.0f} s old, and points older than "
            f"{max_age} s are dropped by Datadog. Write files as they happen; for metrics with "
            "Historical Metrics Ingestion set MAX_AGE_SECONDS."
        )


def read_date(last_modified: str) -> int:
    """Return an HTTP date in epoch seconds; a RetryError where it is none."""
    try:
        return int(parsedate_to_datetime(last_modified).timestamp())
    except ValueError:
        raise RetryError("its object came without a Last-Modified, its timestamp") from None


def normalise_tag(tag: str) -> str:
    """Return a tag as Datadog stores it; "" when nothing is left of it.

    Lower case; letters, digits and _-:./ stay, others become _, runs of _ become one; starts
    with a letter, does not end in _; 200 characters (getting_started/tagging docs).
    """
    # Ten times the length is room enough for what is stripped, and bounds work and cache.
    return _normalise_tag(tag[: 10 * MAX_TAG_CHARACTERS])


@lru_cache(maxsize=4096)
def _normalise_tag(tag: str) -> str:
    if tag.isascii():
        kept = _NOT_IN_ASCII_TAG.sub("_", tag.lower())
    else:  # one for one, as in Go: str.lower() makes two of "İ" and looks at the neighbours of "Σ"
        kept = "".join(
            character
            if character.isalpha() or character.isdecimal() or character in "-:./"
            else "_"
            for character in (original.lower()[0] for original in tag)
        )
    first = next((i for i, character in enumerate(kept) if character.isalpha()), len(kept))
    return re.sub("_+", "_", kept[first:])[:MAX_TAG_CHARACTERS].rstrip("_")


def _read_timestamp(timestamp: object, now: float, max_age: int) -> int:
    """Return an object's timestamp in whole epoch seconds."""
    if timestamp is None:
        raise StatsFileError('no "timestamp". Add one in epoch seconds, as `date +%s` prints.')
    if type(timestamp) is not int and type(timestamp) is not float:
        raise StatsFileError(
            f'"timestamp" is {kind(timestamp)}. Write epoch seconds, as `date +%s` prints.'
        )
    if not -1 < timestamp < LATEST_TIMESTAMP:
        raise StatsFileError(
            f'"timestamp" {show(timestamp)} is not in epoch seconds (milliseconds?). '
            "Write it as `date +%s` prints it."
        )
    check_timestamp(int(timestamp), now, max_age)
    return int(timestamp)


def _read_tags(tags: object) -> tuple[str, ...]:
    """Return an object's tags as written."""
    if tags is None:
        return ()
    if not isinstance(tags, list):
        raise StatsFileError(f'"tags" is {kind(tags)}. Write a list of strings.')
    if len(tags) > MAX_TAGS:
        raise _too_many_tags(len(tags))
    for tag in tags:
        if not isinstance(tag, str):
            raise StatsFileError(f'"tags" holds {kind(tag)}. Write a list of strings.')
    return tuple(tags)


def _sample_tags(written: Sequence[str], shared: frozenset[str]) -> tuple[str, ...]:
    """Return tags as they are sent: normalised, with the shared ones, sorted, each once."""
    tags = set(shared)
    for tag in written:
        _check_surrogates(tag)
        normalised = normalise_tag(tag)
        if not normalised:
            raise StatsFileError(
                f"nothing is left of tag {show(tag)} as Datadog normalises it. "
                "Start tags with a letter."
            )
        tags.add(normalised)
    if len(tags) > MAX_TAGS:
        raise _too_many_tags(len(tags))
    return tuple(sorted(tags))


def _too_many_tags(number: int) -> StatsFileError:
    return StatsFileError(
        f"{number} tags, with the job's and the constant ones, and Datadog drops a series of more "
        f"than {MAX_TAGS}. Write fewer."
    )


def _read_values(
    members: dict[str, object], names: dict[str, str], prefix: str
) -> dict[str, Number]:
    """Return an object's metrics, flattened and checked.

    names: collects the names found good: as written -> whole.
    """
    values: dict[str, Number] = {}
    for name, value in members.items():  # the way of nearly every object but a file's first
        known = names.get(name)
        if not known or (type(value) is not int and type(value) is not float):
            break
        if not -_MAX <= value <= _MAX:
            break
        values[known] = value
    else:
        if values and len(values) == len(members):  # else two were one after the prefix
            return values
    values = {}
    for name, value in _flatten(members, "", 1):
        whole = _check_name(name, names, prefix)
        if whole in values:
            raise StatsFileError(f"{show(name)} stands twice, once nested. Write each name once.")
        values[whole] = _check_number(name, value)
    if not values:
        raise StatsFileError(f"no metric beside the timestamp. Write at least one, {EXAMPLE}")
    return values


def _flatten(members: dict[str, object], prefix: str, depth: int) -> Iterator[tuple[str, object]]:
    """Yield (name, value) with nested names joined by dots; null is skipped."""
    if depth > MAX_DEPTH:
        raise StatsFileError(f"{show(prefix)}: {_TOO_DEEP}")
    for name, value in members.items():
        _check_surrogates(name)
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.", depth + 1)
        elif value is not None:
            yield prefix + name, value


def _check_name(name: str, names: dict[str, str], prefix: str) -> str:
    """Return the one string that stands for a name in this file: the whole name."""
    if name not in names:
        whole = name if name.startswith(UNPREFIXED) else prefix + name
        if not METRIC_NAME.fullmatch(whole):
            raise StatsFileError(
                f"metric name {show(whole)} would be rewritten by Datadog. Start with a letter; "
                "use A-Z, a-z, 0-9, _ and . only, with no _ at the end, beside another _ or beside "
                "a dot; at most 200 characters."
            )
        if len(names) == ddg_json_file.MAX_NAMES:
            raise StatsFileError(TOO_MANY_NAMES)
        names[name] = whole
    return names[name]


def _check_number(name: str, value: object) -> Number:
    """Return a metric's value, a number that a float can hold."""
    if type(value) is not int and type(value) is not float:
        raise StatsFileError(f"{show(name)} is {kind(value)}. A metric needs a JSON number.")
    if not -_MAX <= value <= _MAX:  # NaN isn't either
        raise StatsFileError(
            f"{show(name)} is no number, or too large for a float. Leave it out, or write null."
        )
    return value


def _add_values(known: dict[str, Number], values: dict[str, Number]) -> None:
    """Add an object's metrics to those of the same second and tags."""
    if not known.keys().isdisjoint(values):
        twice = min(known.keys() & values.keys())
        raise StatsFileError(
            f"{show(twice)} has two values for the same second and tags, and Datadog keeps "
            "the last alone. Add them up, or tell them apart by a tag."
        )
    known.update(values)


def _check_series(samples: Iterable[tuple[tuple[int, tuple[str, ...]], dict[str, Number]]]) -> None:
    """Refuse a mapped file of too many series: a mapping may make metrics of a tool's run ids."""
    series = {(name, tags) for (_, tags), values in samples for name in values}
    if len(series) > MAX_MAPPED_SERIES:
        raise StatsFileError(
            f"the mapping makes {len(series):,} series of the file, and more than "
            f"{MAX_MAPPED_SERIES:,} aren't taken: Datadog bills each as a custom metric. Leave out "
            "tags and names that differ from run to run."
        )


def _check_surrogates(text: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise StatsFileError(
            f"{show(text)} holds half a character (a lone surrogate). Correct the job's encoding."
        )
