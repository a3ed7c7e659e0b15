"""What is shown and kept of what is long: enough, and no more."""

from __future__ import annotations

import gzip
import json
import zlib
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

import ddg_stats_file
from ddg_stats_file import StatsFileError, normalise_tag, read_stats_file
from tests.stats_files import NOW


def reason(content: bytes) -> str:
    """Return why a file is refused."""
    with pytest.raises(StatsFileError) as raised:
        read_stats_file(content, now=NOW, max_age=3600)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("1" * 80, '"' + "1" * 80 + '"', id="just"),
        pytest.param("1" * 81, '"' + "1" * 80 + '"', id="longer"),
        pytest.param("é" * 13 + "12", '"' + "\\u00e9" * 13 + '12"', id="escaped-just"),
        pytest.param("é" * 13 + "123", '"' + "\\u00e9" * 13 + "1...", id="escaped-longer"),
    ],
)
def test_name_is_shown_cut(name: str, shown: str) -> None:
    """Eighty characters of it, and on one line of ASCII."""
    content = json.dumps({"timestamp": NOW, name: 1}).encode()
    assert reason(content).startswith(f"metric name {shown} would be rewritten")


@pytest.mark.parametrize(("digits", "shown"), [(82, "1" * 82), (83, "1" * 80 + "...")])
def test_number_is_shown_cut(digits: int, shown: str) -> None:
    """Likewise."""
    content = json.dumps({"timestamp": int("1" * digits), "m": 1}).encode()
    assert reason(content).startswith(f'"timestamp" {shown} is not in epoch seconds')


def test_tag_is_looked_at_over_ten_times_its_length() -> None:
    """Room enough for what is stripped at its beginning; a tag of megabytes costs no more."""
    assert normalise_tag("!" * 1_998 + "abcd") == "ab"


def test_gzip_refers_as_far_back_as_it_may() -> None:
    """32 KiB: a file of more that repeats itself."""
    noise = Random(1).randbytes(15_000).hex()  # 30,000 characters
    names = [
        f"{letter}{noise[start : start + 150]}"
        for letter in "ab"
        for start in range(0, 30_000, 150)
    ]
    content = json.dumps({"timestamp": NOW} | dict.fromkeys(names, 1)).encode()
    [sample] = read_stats_file(gzip.compress(content), now=NOW, max_age=3600)
    assert list(sample.values) == names


@pytest.mark.parametrize("members", [1, 3])
def test_no_more_is_inflated_than_a_file_may_have(
    monkeypatch: pytest.MonkeyPatch, members: int
) -> None:
    """And a byte, so that it is known to be more; however it was compressed."""
    inflated: list[int] = []

    def make_inflater(wbits: int) -> Any:
        member = zlib.decompressobj(wbits)

        def decompress(piece: bytes, most: int) -> bytes:
            plain = member.decompress(piece, most)
            inflated.append(len(plain))
            inflater.eof, inflater.unused_data = member.eof, member.unused_data
            return plain

        inflater = SimpleNamespace(decompress=decompress, eof=False, unused_data=b"")
        return inflater

    fake = SimpleNamespace(decompressobj=make_inflater, MAX_WBITS=15, error=zlib.error)
    monkeypatch.setattr(ddg_stats_file, "zlib", fake)
    monkeypatch.setattr(ddg_stats_file, "MAX_FILE_BYTES", 1000)
    assert "over 1,000 bytes" in reason(
        gzip.compress(b" " * 900) * (members - 1) + gzip.compress(b" " * 5000)
    )
    assert sum(inflated) == 1001


@pytest.mark.parametrize(("most", "refused"), [(3, False), (2, True)])
def test_objects_and_lists_are_counted_together(
    monkeypatch: pytest.MonkeyPatch, most: int, refused: bool
) -> None:
    """Each takes memory."""
    monkeypatch.setattr(ddg_stats_file, "MAX_OBJECTS", most)
    content = json.dumps([{"timestamp": NOW, "tags": ["a"], "m": 1}]).encode()
    if refused:
        assert reason(content).startswith("more than 2 objects and lists")
    else:
        assert read_stats_file(content, now=NOW, max_age=3600)


@pytest.mark.parametrize(
    ("content", "place"),
    [(b"x", "line 1 column 1."), (b"\nx", "line 2 column 1."), (b"\n\n  x", "line 3 column 3.")],
)
def test_place_is_counted_from_the_beginning(content: bytes, place: str) -> None:
    """A file may begin with empty lines."""
    assert place in reason(content)


@pytest.mark.parametrize("half", ["\\ud800", "\\udbff", "\\udc00", "\\udfff"])
@pytest.mark.parametrize(
    "content", ['{"timestamp": %d, "a%s": 1}', '{"timestamp": %d, "tags": ["a%s"]}']
)
def test_each_half_of_a_character_is_seen(content: str, half: str) -> None:
    """The first and the last of them too."""
    assert "half a character" in reason((content % (NOW, half)).encode())


def test_the_name_that_has_two_values_is_told() -> None:
    """And no other of the same second."""
    lines = [{"timestamp": NOW, "a": 1, "m": 2}, {"timestamp": NOW, "m": 3, "b": 4}]
    assert '"m" has two values' in reason("\n".join(map(json.dumps, lines)).encode())
