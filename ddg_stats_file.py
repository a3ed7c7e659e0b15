"""The stats file, which is the contract with the jobs: JSON values in, samples or a reason out.

Pure: no clock, no environment, no network. The submitter reads every file with it, and
`stats.schema.json` says the same for machines. A file with a fault is refused whole, because half
a file in Datadog looks like a healthy job.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from sys import float_info
from typing import NamedTuple, TypeGuard

import ddg_json_file
from ddg_faults import Faults, better_name, is_numeric
from ddg_json_file import EXAMPLE, TOO_MANY_NAMES, RetryError, StatsFileError, show

MAX_DEPTH = 32  # nested objects; a deeper name would hardly fit 200 characters
MAX_MAPPED_SERIES = 1_000  # per file: a mapping easily makes a custom metric of a run id
MAX_TAGS = 100  # Datadog drops a series with more behind a 202 (default of an organisation)
MAX_AHEAD_SECONDS = 600  # Datadog drops points more than 10 minutes ahead, behind a 202
LATEST_TIMESTAMP = 10**11  # the year 5138: anything later is in milliseconds

# Datadog keeps such a name. It cuts or rewrites others, and two names may become one series
# (metrics/custom_metrics docs; NormMetricNameParse in datadog-agent, pkg/util/metricname).
METRIC_NAME = re.compile(r"(?!.*(?:__|_\.|\._|_$))[A-Za-z][A-Za-z0-9_.]{0,199}")
UNPREFIXED = "ddg."  # the pipeline's own metrics, which get no prefix
MAX_TAG_CHARACTERS = 200  # Datadog cuts a longer tag (getting_started/tagging docs)

_MAX = float_info.max  # Datadog stores floats
_NOT_IN_ASCII_TAG = re.compile("[^a-z0-9_:./-]")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character
_HALF = " contains half a character (a lone surrogate): correct the job's encoding"
_TOO_DEEP = f"objects are nested deeper than {MAX_DEPTH}, flatten them"
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)([Tt ])((?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60))(?:\.\d+)?"
    r"([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)?",
    re.ASCII,
)
_RIGHT_TIME = "write epoch seconds, as `date +%s` prints, or a time such as 2019-12-08T21:03:31Z"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Number = int | float


class Sample(NamedTuple):
    """The metrics of one second with one set of tags."""

    timestamp: int  # epoch seconds
    tags: tuple[str, ...]  # normalised, sorted, each once
    values: dict[str, Number]  # metric name -> gauge


# A document -> a format string that names an object's place by its number; the numbered objects
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
        now: epoch seconds; Datadog accepts points in a window around it.
        max_age: maximum age of a timestamp in seconds; 0 means no limit.
        tags: normalised tags for every sample (constant ones, the job's).
        prefix: is put before each metric name, except those that begin with `ddg.`.
        mapping: turns the file into objects of the contract's shape; None if it has that shape.
        last_modified: an HTTP date, for a mapped object without a timestamp; "" if unknown.

    Returns:
        One sample for each second and set of tags; at least one.

    Raises:
        StatsFileError: the file breaks the contract.
        RetryError: the mapping can't be applied now, or needs a date that is unknown.
    """
    reader = _ObjectReader(now, max_age, frozenset(tags), prefix, Faults(mapping is None))
    samples: dict[tuple[int, tuple[str, ...]], dict[str, Number]] = {}
    if mapping:
        place, numbered = mapping(ddg_json_file.read_document(content))
    else:
        place, numbered = ddg_json_file.read_values(content)
    for number, members in numbered:
        try:
            if mapping and isinstance(members, dict) and "timestamp" not in members:
                members["timestamp"] = read_date(last_modified)
            timestamp, sample_tags, values = reader.read(members)
            known = samples.setdefault((timestamp, sample_tags), values)
            if known is not values:
                if twice := known.keys() & values.keys():
                    raise StatsFileError(
                        f"{show(min(twice))} has two values for the same second and tags, and "
                        "Datadog keeps only the last. Add them up, or distinguish them by a tag."
                    )
                known.update(values)
        except StatsFileError as error:
            raise StatsFileError(f"{place.format(number)}{error}") from None
    if not samples:
        raise StatsFileError(f"no object in the file. Write at least one, {EXAMPLE}")
    if mapping:
        _check_series(samples.items())
    return [Sample(timestamp, tags, values) for (timestamp, tags), values in samples.items()]


def check_timestamp(timestamp: int, now: float, max_age: int, *, show_values: bool = True) -> None:
    """Refuse a point outside of Datadog's window: Datadog would drop it behind a 202.

    Args:
        timestamp, now: epoch seconds. max_age: seconds; 0 means no limit.
        show_values: whether the reason may show the timestamp.
    """
    named = f"timestamp {timestamp}" if show_values else "the timestamp"
    if timestamp - now > MAX_AHEAD_SECONDS:
        raise StatsFileError(
            f"{named} is {timestamp - now:.0f} s ahead, and Datadog drops points "
            f"more than {MAX_AHEAD_SECONDS} s ahead: correct the job's clock and upload again"
        )
    if max_age and now - timestamp > max_age:
        raise StatsFileError(
            f"{named} is {now - timestamp:.0f} s old, and Datadog drops points older than "
            f"{max_age} s: upload files sooner, or set MAX_AGE_SECONDS for metrics with Historical "
            "Metrics Ingestion"
        )


def read_date(last_modified: str) -> int:
    """Return an HTTP date in epoch seconds; raise RetryError if it isn't one."""
    try:
        return int(parsedate_to_datetime(last_modified).timestamp())
    except ValueError:
        raise RetryError("its object has no Last-Modified to use as the timestamp") from None


def normalise_tag(tag: str) -> str:
    """Return a tag as Datadog stores it; "" if nothing is left of it.

    It is in lower case, starts with a letter, doesn't end in _, and has up to 200 characters.
    Letters, digits and _-:./ stay, others become _, and runs of _ become one
    (getting_started/tagging docs).
    """
    # Ten times the length is enough for what is stripped, and bounds the work and the cache.
    return _normalise_tag(tag[: 10 * MAX_TAG_CHARACTERS])


@lru_cache(maxsize=4096)
def _normalise_tag(tag: str) -> str:
    if tag.isascii():
        kept = _NOT_IN_ASCII_TAG.sub("_", tag.lower())
    else:  # one by one, as in Go: str.lower() makes two of "İ", and looks beside "Σ"
        kept = "".join(
            character
            if character.isalpha() or character.isdecimal() or character in "-:./"
            else "_"
            for character in (original.lower()[0] for original in tag)
        )
    first = next((i for i, character in enumerate(kept) if character.isalpha()), len(kept))
    return re.sub("_+", "_", kept[first:])[:MAX_TAG_CHARACTERS].rstrip("_")


@dataclass
class _ObjectReader:
    """Reads the objects of a file; remembers the names and tags that were good."""

    now: float
    max_age: int
    shared_tags: frozenset[str]
    prefix: str
    faults: Faults
    names: dict[str, str] = field(default_factory=dict)  # as written -> with the prefix
    tag_sets: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)  # -> as sent

    def read(self, members: object) -> tuple[int, tuple[str, ...], dict[str, Number]]:
        """Return an object's timestamp, tags and metrics, or raise all its faults."""
        if not isinstance(members, dict):
            got = self.faults.kind(members)
            raise StatsFileError(f"expected an object, got {got}. Write one {EXAMPLE}")
        if members.get("timestamp") is None:
            self.faults.has_timestamp = False
            self.faults.add('no "timestamp": add one in epoch seconds, as `date +%s` prints')
        timestamp, tags, names = 0, None, self.names
        values: dict[str, Number] = {}
        for name, value in members.items():
            known = names.get(name)
            if (
                known  # nearly always, except in a file's first object
                and (type(value) is int or type(value) is float)
                and -_MAX <= value <= _MAX
                and known not in values
            ):
                values[known] = value
            elif name == "timestamp":
                timestamp = self._read_timestamp(value)
            elif name == "tags":
                tags = self._read_tags(value)
            else:
                self._read_member(name, value, values, 1)
        if tags is None and (tags := self.tag_sets.get(())) is None:
            tags = self._read_tags(None)
        if not values:
            self.faults.add(f"no metric besides the timestamp: write at least one, {EXAMPLE}")
        if self.faults.listed:
            raise StatsFileError(str(self.faults))
        return timestamp, tags, values

    def _read_timestamp(self, timestamp: object) -> int:
        """Return a timestamp in whole epoch seconds; 0 for null, which counts as missing."""
        if timestamp is None:
            return 0
        try:
            seconds = epoch_seconds(timestamp)
            shown = self.faults.show_values
            check_timestamp(seconds, self.now, self.max_age, show_values=shown)
            return seconds
        except StatsFileError as error:
            self.faults.add(str(error))
        except ValueError as error:
            problem = f"{self.faults.kind(timestamp)}, {error}"
            is_quoted = isinstance(timestamp, str) and is_numeric(timestamp)
            advice = "write it without the quotes" if is_quoted else _RIGHT_TIME
            self.faults.add(f'"timestamp" is {problem}: {advice}')
        return 0

    def _read_tags(self, tags: object) -> tuple[str, ...]:
        """Return an object's tags as they are sent."""
        written = tuple(self._written_tags(tags))
        if written not in self.tag_sets:
            self.tag_sets[written] = self._sent_tags(written)
        return self.tag_sets[written]

    def _written_tags(self, tags: object) -> Iterator[str]:
        """Yield the tags of a list, or name:value for an object; null is left out."""
        if isinstance(tags, list | dict) and len(tags) > MAX_TAGS:
            self.faults.add(_too_many_tags(len(tags)))
        elif isinstance(tags, dict):
            for name, value in tags.items():
                if isinstance(value, str):
                    yield f"{name}:{value}"
                elif isinstance(value, bool):
                    yield f"{name}:{str(value).lower()}"
                elif is_number(value):
                    yield f"{name}:{value!r}"
                elif value is not None:
                    self._fault_tag(name, value, "a string, a boolean, or a number within a float")
        elif isinstance(tags, list):
            for number, tag in enumerate(tags, 1):
                if isinstance(tag, str):
                    yield tag
                else:
                    self._fault_tag(number, tag, 'a string, such as "env:prod"')
        elif tags is not None:
            what = self.faults.kind(tags)
            self.faults.add(f'"tags" is {what}: write a list of strings, or an object')

    def _fault_tag(self, place: int | str, tag: object, right: str) -> None:
        found = self.faults.kind(tag)
        self.faults.add(f'tag {show(place)} in "tags" is {found}: write {right}')

    def _sent_tags(self, written: Iterable[str]) -> tuple[str, ...]:
        """Return tags as they are sent: normalised, with the shared ones, sorted, each once."""
        sent = set(self.shared_tags)
        for tag in written:
            normalised, is_broken = normalise_tag(tag), _has_surrogate(tag)
            if normalised and not is_broken:
                sent.add(normalised)
                continue
            shown = self.faults.string(tag, "tag")
            nothing = f"nothing is left of {shown} after Datadog normalises it"
            self.faults.add(shown + _HALF if is_broken else f"{nothing}: start it with a letter")
        if len(sent) > MAX_TAGS:
            self.faults.add(_too_many_tags(len(sent)))
        return tuple(sorted(sent))

    def _read_member(self, name: str, value: object, values: dict[str, Number], depth: int) -> None:
        """Add a member's metrics; nested names are joined with dots, null is skipped."""
        if _has_surrogate(name):
            self.faults.add(lambda: show(name) + _HALF)
        elif isinstance(value, dict):
            if depth == MAX_DEPTH:
                self.faults.add(lambda: f"{show(name)}: {_TOO_DEEP}")
                return
            start = name[:201]  # too long for a metric name already: bounds the work
            for inner, each in value.items():
                joined = f"{start}.{inner}"
                known = self.names.get(joined)
                if known and is_number(each) and known not in values:
                    values[known] = each
                else:
                    self._read_member(joined, each, values, depth + 1)
        elif value is not None:
            number: Number = 0
            if is_number(value):
                number = value
            else:
                self.faults.add(lambda: self.faults.value(name, value))
            known = self._known_name(name) if is_numeric(value) else ""
            if known and known in values:
                self.faults.add(lambda: f"{show(name)} appears twice: write each name once")
            values[known] = number  # a faulty one counts as "", so it isn't "no metric"

    def _known_name(self, name: str) -> str:
        """Return the name with its prefix, one string for the whole file; "" if it is faulty."""
        if name not in self.names:
            whole = name if name.startswith(UNPREFIXED) else self.prefix + name
            if not METRIC_NAME.fullmatch(whole):
                self.faults.add(
                    lambda: (
                        f"metric name {show(whole)} would be rewritten by Datadog: "
                        f"{better_name(whole, self.prefix)}"
                    )
                )
                return ""
            if len(self.names) == ddg_json_file.MAX_NAMES:
                raise StatsFileError(TOO_MANY_NAMES)
            self.names[name] = whole
        return self.names[name]


def epoch_seconds(timestamp: object) -> int:
    """Return a timestamp in whole epoch seconds; raise ValueError with what is wrong."""
    if type(timestamp) is int or type(timestamp) is float:
        if not -1 < timestamp < LATEST_TIMESTAMP:
            raise ValueError("not in epoch seconds (milliseconds?)")
        return int(timestamp)
    if not isinstance(timestamp, str) or not (time := _RFC_3339.fullmatch(timestamp)):
        raise ValueError("not an RFC 3339 time")
    date, separator, clock, zone = time.groups()
    if not zone:
        raise ValueError("a time without a zone (Z, or an offset such as +02:00)")
    if separator == " ":
        raise ValueError("a time with a space instead of T")
    if clock.endswith("60"):
        raise ValueError("a leap second, which epoch seconds don't have")
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{zone.upper()}")
    except ValueError:
        raise ValueError("a date that doesn't exist") from None
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    if not 0 <= seconds < LATEST_TIMESTAMP:
        raise ValueError("a time before 1970 or after 5138")
    return seconds


def is_number(value: object) -> TypeGuard[Number]:
    """Return whether a value is a number that a float can hold; NaN isn't."""
    return (type(value) is int or type(value) is float) and -_MAX <= value <= _MAX


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and bool(_SURROGATE.search(text))


def _too_many_tags(number: int) -> str:
    return (
        f"{number} tags, including the job's and the constant ones, and Datadog drops a series "
        f"with more than {MAX_TAGS}: write fewer"
    )


def _check_series(samples: Iterable[tuple[tuple[int, tuple[str, ...]], dict[str, Number]]]) -> None:
    """Refuse a mapped file with too many series: a mapping may make metrics of run ids."""
    series = {(name, tags) for (_, tags), values in samples for name in values}
    if len(series) > MAX_MAPPED_SERIES:
        raise StatsFileError(
            f"the mapping makes {len(series):,} series, and the limit is {MAX_MAPPED_SERIES:,}: "
            "Datadog bills each as a custom metric. Leave out tags and names that change every run."
        )
