"""Read a job's file as JSON: bytes in, values or a reason out. ddg_stats_file has the contract.

Pure. Memory and time are bounded, whatever the bytes are.
"""

import codecs
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator

MAX_FILE_BYTES = 10 * 1024 * 1024  # as uploaded and decompressed: a file is parsed in memory
MAX_OBJECTS = 350_000  # and lists, per file: an empty one is 3 bytes, and 64 in memory
MAX_NAMES = 50_000  # different metric names per file: Datadog bills each

_WIDE = 100  # members per object; in a file with wider ones the names are counted first
_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # PowerShell's > writes the first
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_SLICE = 16 * 1024  # small, because zlib copies the rest of a slice after each member
_GZIP_RATIO = 1032  # the most that deflate makes of a byte (zlib's technical details)
_ZEROS = re.compile(b"\0*")
# A string, or the beginning of one that has no end; it is a name if a colon follows
_STRING = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"([ \t\r\n]*+:)?|\\?\Z)', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")  # JSON's white space, not Unicode's

_SHOWN_CHARACTERS = 80  # of a name or value in a reason
EXAMPLE = 'such as {"timestamp": <epoch seconds>, "processed.data": 321}'
TOO_MANY_NAMES = (
    f"more than {MAX_NAMES:,} different metric names; each is a custom metric that Datadog "
    "bills. Use fewer names, and tags to distinguish the cases."
)
TOO_DEEP = "objects are nested too deeply to be read. Flatten them."
_KINDS = {
    str: "a string",
    bool: "a boolean",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


class StatsFileError(ValueError):
    """The file is refused for good. The text says what is wrong, where, and what to do."""


class RetryError(Exception):
    """The file can't be read now, for a reason outside the file. The text says why."""


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise StatsFileError(f"{show(twice)} appears twice in an object. Write each name once.")
    return members


# The second decoder is for integers of more than 4,300 digits, which Python doesn't read. As
# floats they are infinite, and are refused by name.
_Decoders = tuple[json.JSONDecoder, ...]
_STRICT: _Decoders = (
    json.JSONDecoder(object_pairs_hook=_unique_members),
    json.JSONDecoder(object_pairs_hook=_unique_members, parse_int=float),
)
_LENIENT: _Decoders = (json.JSONDecoder(), json.JSONDecoder(parse_int=float))


def read_values(content: bytes) -> tuple[str, Iterable[tuple[int, object]]]:
    """Read a file: one JSON value, an array, or JSON Lines; plain or gzip.

    Returns:
        A format string that names a value's place by its number, and the numbered values: the
        elements of the array, the lines, or the single value.

    Raises:
        StatsFileError: the file isn't JSON, or is over a limit; iterating may raise it, too.
    """
    text, start, value, following = _read_first(content, _STRICT)
    if isinstance(value, list):
        if following < len(text):
            raise _not_json(text, following, "something follows the array")
        return "object {} of the array: ", enumerate(value, 1)
    if following < len(text):
        return "line {}: ", _lines(text, start, _STRICT)
    return "", [(1, value)]


def read_document(content: bytes) -> object:
    """Read a file for a mapping: one JSON value, or for JSON Lines the list of its values.

    If a name appears twice in an object, the last one counts, and a number may be NaN or infinite.

    Raises:
        StatsFileError: the file isn't JSON, or is over a limit.
    """
    text, start, value, following = _read_first(content, _LENIENT)
    more = _lines(text, start, _LENIENT) if following < len(text) else ()
    return [each for _, each in more] or value


def _read_first(content: bytes, decoders: _Decoders) -> tuple[str, int, object, int]:
    """Return a file's text, where its first value starts, that value, and where more follows."""
    text = _decode(content)
    _check_counts(text)
    start = _skip_space(text, 0)
    value, end = _decode_value(text, start, decoders)
    return text, start, value, _skip_space(text, end)


def _decode(content: bytes) -> str:
    """Return the file's text, decompressed if it is gzip, without a byte order mark."""
    if len(content) > MAX_FILE_BYTES:
        raise too_large()
    if content.startswith(_GZIP_MAGIC):
        content = _decompress(content)
    encoding = "UTF-16" if content.startswith(_UTF_16_MARKS) else "UTF-8"
    try:
        text = content.decode("utf-8-sig" if encoding == "UTF-8" else encoding)
    except UnicodeDecodeError as error:
        byte = error.start + len(content) - len(error.object)  # without UTF-8's mark
        raise StatsFileError(
            f"byte {byte} is not {encoding}. Write the file as UTF-8 JSON."
        ) from None
    if _SPACE.fullmatch(text):
        raise StatsFileError(f"the file is empty. Write at least one object, {EXAMPLE}")
    return text


def _decompress(content: bytes) -> bytes:
    """Return the content of all gzip members; zeros may pad a member.

    Python's gzip does the same, but takes ten times as long for a file of many small members.
    """
    plain = bytearray()
    view = memoryview(content)
    position = 0
    while position < len(content):
        if not content.startswith(_GZIP_MAGIC, position):
            raise StatsFileError(
                f"something follows the gzip data at byte {position}. Compress the file again."
            )
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        while not member.eof:
            if not (piece := view[position : position + _GZIP_SLICE]):
                raise StatsFileError(
                    "the gzip data ends too early. Upload the whole file, after closing it."
                )
            try:
                plain += member.decompress(piece, MAX_FILE_BYTES + 1 - len(plain))
            except zlib.error as error:
                raise StatsFileError(
                    f"broken gzip data at byte {position} ({error}). Compress the file again."
                ) from None
            if len(plain) > MAX_FILE_BYTES:
                raise too_large(" decompressed")
            position += len(piece) - len(member.unused_data)
        position = _ZEROS.match(content, position).end()  # type: ignore[union-attr]  # it matches "" too
    return bytes(plain)


def too_large(state: str = "") -> StatsFileError:
    """Return the refusal of a file over MAX_FILE_BYTES."""
    return StatsFileError(
        f"the file is over {MAX_FILE_BYTES:,} bytes{state}. Split it into smaller files."
    )


def most_plain_bytes(content: bytes) -> int:
    """Return the most bytes of text that a file can have, without decompressing it."""
    ratio = _GZIP_RATIO if content.startswith(_GZIP_MAGIC) else 1
    return min(ratio * len(content), MAX_FILE_BYTES)


def _check_counts(text: str) -> None:
    """Refuse a file that would take too much memory once decoded: 200 bytes per name."""
    objects = text.count("{")
    if text.count("[") + objects > MAX_OBJECTS:
        raise StatsFileError(
            f"more than {MAX_OBJECTS:,} objects and lists. Split the file into smaller ones."
        )
    most = MAX_NAMES + objects + len(("timestamp", "tags"))  # metrics, objects, these two
    if text.count(":") <= max(most, _WIDE * objects):
        return  # nearly every file: counting is fast
    names = set()
    for string in _STRING.finditer(text):
        if string[2]:
            names.add(string[1])
            if len(names) > most:
                raise StatsFileError(TOO_MANY_NAMES)


def _lines(text: str, position: int, decoders: _Decoders) -> Iterator[tuple[int, object]]:
    """Yield the values of JSON Lines with their line numbers."""
    line = 1 + text.count("\n", 0, position)
    while position < len(text):
        value, end = _decode_value(text, position, decoders)
        if "\n" in text[position:end]:
            raise _not_json(text, position, "one of several values takes more than one line")
        position = _skip_space(text, end)
        lines = text.count("\n", end, position)
        if not lines and position < len(text):
            raise _not_json(text, position, "more than one value on a line")
        yield line, value
        line += lines


def _skip_space(text: str, position: int) -> int:
    """Return the position of the next character that isn't JSON white space."""
    return _SPACE.match(text, position).end()  # type: ignore[union-attr]  # it matches "" too


def _decode_value(text: str, position: int, decoders: _Decoders) -> tuple[object, int]:
    """Decode the JSON value at a position; return it and its end."""
    try:
        return decoders[0].raw_decode(text, position)
    except StatsFileError as error:
        raise StatsFileError(f"near line {_line(text, position)}: {error}") from None
    except json.JSONDecodeError as error:
        raise _not_json(text, error.pos, error.msg) from None
    except RecursionError:
        raise StatsFileError(f"near line {_line(text, position)}: {TOO_DEEP}") from None
    except ValueError:  # an integer of more than 4,300 digits
        return _decode_value(text, position, decoders[1:])


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _not_json(text: str, position: int, problem: str) -> StatsFileError:
    column = position - text.rfind("\n", 0, position)
    return StatsFileError(
        f"not JSON: {problem}: line {_line(text, position)} column {column}. "
        "Write one object, an array of objects, or one object per line."
    )


def kind(value: object) -> str:
    """Return the type of a JSON value, as a reason names it."""
    return _KINDS.get(type(value), "a number")


def show(value: object, most: int = _SHOWN_CHARACTERS) -> str:
    """Quote a name or value for a reason, as a line of ASCII; `most`: characters of a string."""
    shown = json.dumps(value[:most] if isinstance(value, str) else value)
    if len(shown) > _SHOWN_CHARACTERS + 2:
        return shown[:_SHOWN_CHARACTERS] + "..."
    return f"{shown}..." if isinstance(value, str) and len(value) > most else shown
