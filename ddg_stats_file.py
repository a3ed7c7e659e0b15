"""The stats file, the contract with the jobs: bytes in, samples or a reason out.

Pure: no clock, no environment, no network. The submitter reads every file with it and
`stats.schema.json` says the same for machines. What is refused is refused whole, because
half a file in Datadog looks like a healthy job.
"""

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from sys import float_info
from typing import NamedTuple

MAX_FILE_BYTES = 10 * 1024 * 1024  # plain and decompressed alike: a file is parsed in memory
MAX_OBJECTS = 350_000  # a file, lists included: an empty one is 3 bytes, and 64 in memory
MAX_DEPTH = 32  # nested objects; the name of a deeper one would hardly fit 200 characters
MAX_NAMES = 50_000  # distinct metric names a file: Datadog bills each as a custom metric
MAX_TAGS = 100  # Datadog drops a series of more behind a 202 (an organisation's default)
MAX_AHEAD_SECONDS = 600  # Datadog drops points more than 10 minutes ahead, behind a 202
LATEST_TIMESTAMP = 10**11  # the year 5138: what lies beyond was written in milliseconds

# Datadog keeps such a name. Any other it cuts or rewrites, and two names may become one series
# (metrics/custom_metrics docs; NormMetricNameParse in datadog-agent, pkg/util/metricname).
METRIC_NAME = re.compile(r"(?!.*(?:__|_\.|\._|_$))[A-Za-z][A-Za-z0-9_.]{0,199}")
MAX_TAG_CHARACTERS = 200  # Datadog cuts a longer tag (getting_started/tagging docs)

_MAX = float_info.max  # of a number: Datadog stores floats
_WIDE = 100  # members an object; in a file of wider ones the names are counted first
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_SLICE = 16 * 1024  # small, because zlib copies what is left of a slice after each member
_NOT_IN_ASCII_TAG = re.compile("[^a-z0-9_:./-]")
_ZEROS = re.compile(b"\0*")
_GZIP_RATIO = 1032  # deflate makes no more of a byte (zlib's technical details)
# A string, or what was to be one up to the text's end; with a colon after it, it is a name
_STRING = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"([ \t\r\n]*+:)?|\\?\Z)', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")  # JSON's white space, not Unicode's

_SHOWN_CHARACTERS = 80  # of a name or value in a reason
_EXAMPLE = 'such as {"timestamp": <epoch seconds>, "processed.data": 321}'
_TOO_DEEP = f"objects are nested deeper than {MAX_DEPTH}. Write flatter ones."
_TOO_MANY_NAMES = (
    f"more than {MAX_NAMES:,} different metric names; each is a custom metric that Datadog "
    "bills. Use fewer names, and tags to tell the cases apart."
)
_KINDS = {bool: "a boolean", list: "a list", dict: "an object", type(None): "null"}
Number = int | float


class Sample(NamedTuple):
    """The metrics of one second under one set of tags."""

    timestamp: int  # epoch seconds
    tags: tuple[str, ...]  # normalised, sorted, each once
    values: dict[str, Number]  # metric name -> gauge


class StatsFileError(ValueError):
    """A file that is refused for good; its text says what is wrong, where, and what to do."""


def read_stats_file(
    content: bytes, *, now: float, max_age: int, tags: Iterable[str] = ()
) -> list[Sample]:
    """Read one stats file.

    Args:
        content: the object's bytes, plain or gzip; one object, an array of them, or JSON Lines.
        now: epoch seconds, for the window that Datadog takes points of.
        max_age: seconds a timestamp may be old; 0 means no limit.
        tags: normalised tags that every sample carries (constant ones, the job's).

    Returns:
        One sample for each second and set of tags, at least one.

    Raises:
        StatsFileError: anything about the file is not as the contract says.
    """
    text = _decode(content)
    _check_counts(text)
    shared_tags = frozenset(tags)
    names: dict[str, str] = {}  # names found good, so that each is checked and stored once
    tag_sets: dict[tuple[str, ...], tuple[str, ...]] = {}  # as written -> as sent, likewise
    samples: dict[tuple[int, tuple[str, ...]], dict[str, Number]] = {}
    place, numbered = _objects(text)
    for number, members in numbered:
        try:
            if not isinstance(members, dict):
                raise StatsFileError(f"{_kind(members)} stands where an object must, {_EXAMPLE}")
            timestamp = _read_timestamp(members.pop("timestamp", None), now, max_age)
            written = _read_tags(members.pop("tags", None))
            if (sample_tags := tag_sets.get(written)) is None:
                sample_tags = tag_sets[written] = _sample_tags(written, shared_tags)
            values = _read_values(members, names)
            known = samples.setdefault((timestamp, sample_tags), values)
            if known is not values:
                _add_values(known, values)
        except StatsFileError as error:
            raise StatsFileError(f"{place.format(number)}{error}") from None
    if not samples:
        raise StatsFileError(f"no object in the file. Write at least one, {_EXAMPLE}")
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


def _decode(content: bytes) -> str:
    """Return the file's text: decompressed where it is gzip, without a byte order mark."""
    if len(content) > MAX_FILE_BYTES:
        raise too_large()
    if content.startswith(_GZIP_MAGIC):
        content = _decompress(content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.start + len(content) - len(error.object)  # counted without the mark
        raise StatsFileError(f"byte {byte} is not UTF-8. Write the file as UTF-8 JSON.") from None
    if _SPACE.fullmatch(text):
        raise StatsFileError(f"the file is empty. Write at least one object, {_EXAMPLE}")
    return text


def _decompress(content: bytes) -> bytes:
    """Return what all gzip members hold, at most a byte over the limit; zeros may pad a member.

    Python's gzip does the same, but takes ten times as long for a file of many small members.
    """
    plain = bytearray()
    view = memoryview(content)
    position = 0
    member = None
    while piece := view[position : position + _GZIP_SLICE]:
        if member is None or member.eof:
            if member and not piece[0]:
                position = _ZEROS.match(content, position).end()  # type: ignore[union-attr]  # it matches "" too
                continue
            if not content.startswith(_GZIP_MAGIC, position):
                raise StatsFileError(
                    f"something follows the gzip data at byte {position}. Compress the file again."
                )
            member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            plain += member.decompress(piece, MAX_FILE_BYTES + 1 - len(plain))
        except zlib.error as error:
            raise StatsFileError(
                f"broken gzip data at byte {position} ({error}). Compress the file again."
            ) from None
        if len(plain) > MAX_FILE_BYTES:
            raise too_large(" decompressed")
        position += len(piece) - len(member.unused_data)
    if not (member and member.eof):
        raise StatsFileError(
            "the gzip data ends too early. Upload the whole file, after closing it."
        )
    return bytes(plain)


def too_large(state: str = "") -> StatsFileError:
    """Return the refusal of a file over MAX_FILE_BYTES."""
    return StatsFileError(
        f"the file is over {MAX_FILE_BYTES:,} bytes{state}. Split it into smaller files."
    )


def most_plain_bytes(content: bytes) -> int:
    """Return how many bytes of text a file can have, without inflating it."""
    ratio = _GZIP_RATIO if content.startswith(_GZIP_MAGIC) else 1
    return min(ratio * len(content), MAX_FILE_BYTES)


def _check_counts(text: str) -> None:
    """Refuse what takes too much memory once it is decoded: of a name that is 200 bytes."""
    objects = text.count("{")
    if text.count("[") + objects > MAX_OBJECTS:
        raise StatsFileError(
            f"more than {MAX_OBJECTS:,} objects and lists. Split the file into smaller ones."
        )
    most = MAX_NAMES + objects + len(("timestamp", "tags"))  # that name a metric, an object, these
    if text.count(":") <= max(most, _WIDE * objects):
        return  # nearly every file, at the speed of C
    names = set()
    for string in _STRING.finditer(text):
        if string[2]:
            names.add(string[1])
            if len(names) > most:
                raise StatsFileError(_TOO_MANY_NAMES)


def _objects(text: str) -> tuple[str, Iterable[tuple[int, object]]]:
    """Return the values that should be objects, numbered, and how to name the place of one."""
    start = _skip_space(text, 0)
    value, end = _decode_value(text, start)
    following = _skip_space(text, end)
    if not isinstance(value, list):
        return ("", [(1, value)]) if following == len(text) else ("line {}: ", _lines(text, start))
    if following < len(text):
        raise _not_json(text, following, "something follows the array")
    return "object {} of the array: ", enumerate(value, 1)


def _lines(text: str, position: int) -> Iterator[tuple[int, object]]:
    """Yield the values of JSON Lines with their line numbers."""
    line = 1 + text.count("\n", 0, position)
    while position < len(text):
        value, end = _decode_value(text, position)
        if "\n" in text[position:end]:
            raise _not_json(text, position, "of several objects each takes one line")
        position = _skip_space(text, end)
        lines = text.count("\n", end, position)
        if not lines and position < len(text):
            raise _not_json(text, position, "more than one value in a line")
        yield line, value
        line += lines


def _skip_space(text: str, position: int) -> int:
    """Return where the next character that is no JSON white space stands."""
    return _SPACE.match(text, position).end()  # type: ignore[union-attr]  # it matches "" too


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise StatsFileError(f"{_show(twice)} stands twice in an object. Write each name once.")
    return members


_decoder = json.JSONDecoder(object_pairs_hook=_unique_members)
# Python reads no integer of more than 4,300 digits; as a float it is infinite, and refused by name.
_decoder_of_floats = json.JSONDecoder(object_pairs_hook=_unique_members, parse_int=float)


def _decode_value(
    text: str, position: int, decoder: json.JSONDecoder = _decoder
) -> tuple[object, int]:
    """Decode the JSON value at a position; return it and where it ends."""
    try:
        return decoder.raw_decode(text, position)
    except StatsFileError as error:
        raise StatsFileError(f"near line {_line(text, position)}: {error}") from None
    except json.JSONDecodeError as error:
        raise _not_json(text, error.pos, error.msg) from None
    except RecursionError:
        raise StatsFileError(f"near line {_line(text, position)}: {_TOO_DEEP}") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        return _decode_value(text, position, _decoder_of_floats)


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _not_json(text: str, position: int, problem: str) -> StatsFileError:
    column = position - text.rfind("\n", 0, position)
    return StatsFileError(
        f"not JSON: {problem}: line {_line(text, position)} column {column}. "
        "Write one object, an array of objects, or one object a line."
    )


def _read_timestamp(timestamp: object, now: float, max_age: int) -> int:
    """Return an object's timestamp in whole epoch seconds."""
    if timestamp is None:
        raise StatsFileError('no "timestamp". Add one in epoch seconds, as `date +%s` prints.')
    if type(timestamp) is not int and type(timestamp) is not float:
        raise StatsFileError(
            f'"timestamp" is {_kind(timestamp)}. Write epoch seconds, as `date +%s` prints.'
        )
    if not -1 < timestamp < LATEST_TIMESTAMP:
        raise StatsFileError(
            f'"timestamp" {_show(timestamp)} is not in epoch seconds (milliseconds?). '
            "Write it as `date +%s` prints it."
        )
    check_timestamp(int(timestamp), now, max_age)
    return int(timestamp)


def _read_tags(tags: object) -> tuple[str, ...]:
    """Return an object's tags as written."""
    if tags is None:
        return ()
    if not isinstance(tags, list):
        raise StatsFileError(f'"tags" is {_kind(tags)}. Write a list of strings.')
    if len(tags) > MAX_TAGS:
        raise _too_many_tags(len(tags))
    for tag in tags:
        if not isinstance(tag, str):
            raise StatsFileError(f'"tags" holds {_kind(tag)}. Write a list of strings.')
    return tuple(tags)


def _sample_tags(written: Sequence[str], shared: frozenset[str]) -> tuple[str, ...]:
    """Return tags as they are sent: normalised, with the shared ones, sorted, each once."""
    tags = set(shared)
    for tag in written:
        _check_surrogates(tag)
        normalised = normalise_tag(tag)
        if not normalised:
            raise StatsFileError(
                f"nothing is left of tag {_show(tag)} as Datadog normalises it. "
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


def _read_values(members: dict[str, object], names: dict[str, str]) -> dict[str, Number]:
    """Return an object's metrics, flattened and checked; `names` collects the names found good."""
    values: dict[str, Number] = {}
    for name, value in members.items():  # the way of nearly every object but a file's first
        known = names.get(name)
        if not known or (type(value) is not int and type(value) is not float):
            break
        if not -_MAX <= value <= _MAX:
            break
        values[known] = value
    else:
        if values:
            return values
    values = {}
    for name, value in _flatten(members, "", 1):
        if name in values:
            raise StatsFileError(f"{_show(name)} stands twice, once nested. Write each name once.")
        values[_check_name(name, names)] = _check_number(name, value)
    if not values:
        raise StatsFileError(f"no metric beside the timestamp. Write at least one, {_EXAMPLE}")
    return values


def _flatten(members: dict[str, object], prefix: str, depth: int) -> Iterator[tuple[str, object]]:
    """Yield (name, value) with nested names joined by dots; null is skipped."""
    if depth > MAX_DEPTH:
        raise StatsFileError(f"{_show(prefix)}: {_TOO_DEEP}")
    for name, value in members.items():
        _check_surrogates(name)
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.", depth + 1)
        elif value is not None:
            yield prefix + name, value


def _check_name(name: str, names: dict[str, str]) -> str:
    """Return the one string that stands for a name in this file."""
    if name not in names:
        if not METRIC_NAME.fullmatch(name):
            raise StatsFileError(
                f"metric name {_show(name)} would be rewritten by Datadog. Start with a letter; "
                "use A-Z, a-z, 0-9, _ and . only, with no _ at the end, beside another _ or beside "
                "a dot; at most 200 characters."
            )
        if len(names) == MAX_NAMES:
            raise StatsFileError(_TOO_MANY_NAMES)
        names[name] = name
    return names[name]


def _check_number(name: str, value: object) -> Number:
    """Return a metric's value, a number that a float can hold."""
    if type(value) is not int and type(value) is not float:
        raise StatsFileError(f"{_show(name)} is {_kind(value)}. A metric needs a JSON number.")
    if not -_MAX <= value <= _MAX:  # NaN isn't either
        raise StatsFileError(
            f"{_show(name)} is no number, or too large for a float. Leave it out, or write null."
        )
    return value


def _add_values(known: dict[str, Number], values: dict[str, Number]) -> None:
    """Add an object's metrics to those of the same second and tags."""
    if not known.keys().isdisjoint(values):
        twice = min(known.keys() & values.keys())
        raise StatsFileError(
            f"{_show(twice)} has two values for the same second and tags, and Datadog keeps "
            "the last alone. Add them up, or tell them apart by a tag."
        )
    known.update(values)


def _check_surrogates(text: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise StatsFileError(
            f"{_show(text)} holds half a character (a lone surrogate). Correct the job's encoding."
        )


def _kind(value: object) -> str:
    if isinstance(value, str):
        return f"the string {_show(value)}"
    return _KINDS.get(type(value), "a number")


def _show(value: object) -> str:
    """Quote a name or value for a reason: one line of ASCII, cut."""
    shown = json.dumps(value[:_SHOWN_CHARACTERS] if isinstance(value, str) else value)
    return shown if len(shown) <= _SHOWN_CHARACTERS + 2 else shown[:_SHOWN_CHARACTERS] + "..."
