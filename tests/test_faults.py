"""A reason lists all faults of a file's first bad object, and says what to do."""

from __future__ import annotations

import re

import pytest

from ddg_json_file import StatsFileError
from ddg_stats_file import read_stats_file
from tests import stats_files as files
from tests.stats_files import NOW, A, refusal


@pytest.mark.parametrize(
    ("members", "faults"),
    [
        pytest.param(
            '"status": "ok", "timestamp": 5e11, "b": {"ok": true, "l": []}, "rows": "-5"',
            '"status" is the string "ok": drop it, or make it a tag: "tags": ["status:ok"]; '
            '"timestamp" is the number 500000000000.0, not in epoch seconds (milliseconds?): write '
            "epoch seconds, as `date +%s` prints, or a time such as 2019-12-08T21:03:31Z; "
            '"b.ok" is a boolean: write 1 or 0, drop it, or make it a tag: "tags": ["b.ok:true"]; '
            '"b.l" is a list: drop it, or map it; '
            '"rows" is the string "-5": write it without the quotes, or drop it',
            id="values",
        ),
        pytest.param(
            '"end": "2019-12-08T21:03:31Z", "at": "2019-12-08 21:03:31", "a": 1',
            'no "timestamp": add one in epoch seconds, as `date +%s` prints; '
            '"end" is the string "2019-12-08T21:03:31Z": rename it to "timestamp", or map it; '
            '"at" is the string "2019-12-08 21:03:31": add its zone, rename it to "timestamp", or '
            "map it",
            id="times",
        ),
        pytest.param(
            '"timestamp": 1575839011, "end": "2019-12-08T21:03:31+01:00"',
            '"end" is the string "2019-12-08T21:03:31+"...: drop it, rename it to "timestamp", or '
            "map it",
            id="time-beside-the-timestamp",
        ),
        pytest.param(
            '"timestamp": 1575839011, "a": "x2345678901234567890", "b": "x2345678901234567890+", '
            f'"c": "", "d": "\\u0007", "{"e" * 110}": "x"',
            '"a" is the string "x2345678901234567890": drop it, or make it a tag: "tags": '
            '["a:x2345678901234567890"]; '
            '"b" is the string "x2345678901234567890"...: drop it, or make it a tag; '
            '"c" is the string "": drop it; '
            '"d" is the string "\\u0007": drop it, or make it a tag; '
            f'"{"e" * 80}"... is the string "x": drop it, or make it a tag',
            id="strings",
        ),
        pytest.param(
            '"timestamp": 1575839011, "a-b": 1, "9a": true, "b c": "x", "_-": 1e400',
            'metric name "a-b" would be rewritten by Datadog: write "a_b"; '
            '"9a" is a boolean: write 1 or 0, drop it, or make it a tag: "tags": ["9a:true"]; '
            'metric name "9a" would be rewritten by Datadog: write "a"; '
            '"b c" is the string "x": drop it, or make it a tag: "tags": ["b c:x"]; '
            '"_-" is not a number, or too large for a float: leave it out, or write null; '
            'metric name "_-" would be rewritten by Datadog: start with a letter; '
            "use A-Z, a-z, 0-9, _ and . only, with no _ at the end, next to another _ or next to a "
            "dot; at most 200 characters",
            id="names",
        ),
        pytest.param(
            '"tags": [1, "!", {"env": "prod"}], "timestamp": true',
            'tag 1 in "tags" is the number 1: write a string, such as "env:prod"; '
            'tag 3 in "tags" is an object: write a string, such as "env:prod"; '
            'nothing is left of the tag "!" after Datadog normalises it: start it with a letter; '
            '"timestamp" is a boolean, not an RFC 3339 time: write epoch seconds, as `date '
            "+%s` prints, or a time such as 2019-12-08T21:03:31Z; "
            "no metric besides the timestamp: write at least one, "
            'such as {"timestamp": <epoch seconds>, "processed.data": 321}',
            id="tags-and-no-metric",
        ),
    ],
)
def test_reason_lists_all_faults_of_an_object(members: str, faults: str) -> None:
    """They come in the file's order, and only from its first bad object."""
    assert refusal(f"{{{members}}}".encode()) == faults
    assert refusal(f'{A}\n{{{members}}}\n{{"a": "x"}}'.encode()) == f"line 2: {faults}"


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ('"a": "secret"', '"a" is a string: drop it, or make it a tag'),
        ('"a": 1, "timestamp": "secret"', '"timestamp" is a string, not an RFC 3339 time'),
        ('"a": 1, "timestamp": 123456789012', '"timestamp" is a number, not in epoch seconds'),
        ('"a": 1, "tags": "secret"', '"tags" is a string: write a list of strings, or'),
        ('"a": 1, "tags": [123456]', 'tag 1 in "tags" is a number: write a string'),
        ('"a": 1, "tags": ["123456"]', "nothing is left of a tag after Datadog normalises it"),
        ('"a": 1, "tags": ["secret\\ud83d"]', "a tag contains half a character"),
    ],
)
def test_reason_of_a_mapped_file_shows_no_values(members: str, fault: str) -> None:
    """Such a file may contain tokens, and reasons end up in logs and messages."""
    content = f'{{"timestamp": {NOW}, {members}}}'.encode()
    with pytest.raises(StatsFileError) as caught:
        read_stats_file(content, now=NOW, max_age=0, mapping=lambda document: ("", [(1, document)]))
    assert fault in str(caught.value)
    assert not re.search("secret|123456", str(caught.value))


@pytest.mark.parametrize(
    ("value", "listed"),
    [
        pytest.param('"x"', 10, id="ten"),
        pytest.param('"' + r"\ud83d\udc28" * 20 + '"', 7, id="as-many-as-fit"),
    ],
)
def test_reason_is_bounded(value: str, listed: int) -> None:
    """Faults that don't fit are counted."""
    members = ", ".join(f'"n{n}": {value}' for n in range(30))
    reason = refusal(f"[{A}, {files.at_now(members)}]".encode())
    assert re.findall(r'"n(\d+)" is the string ', reason) == [*map(str, range(listed))]
    assert reason.endswith(f"; and {30 - listed} more")
