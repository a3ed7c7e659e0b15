"""What a reason shows of a file: enough to find it, and no more."""

from __future__ import annotations

import json

import pytest

from ddg_stats_file import StatsFileError, read_stats_file
from tests.stats_files import NOW


def reason(content: str) -> str:
    """Return why a file is refused."""
    with pytest.raises(StatsFileError) as raised:
        read_stats_file(content.encode(), now=NOW, max_age=3600)
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
    content = json.dumps({"timestamp": NOW, name: 1})
    assert reason(content).startswith(f"metric name {shown} would be rewritten")


@pytest.mark.parametrize(("digits", "shown"), [(82, "1" * 82), (83, "1" * 80 + "...")])
def test_number_is_shown_cut(digits: int, shown: str) -> None:
    """Likewise."""
    content = json.dumps({"timestamp": int("1" * digits), "m": 1})
    assert reason(content).startswith(f'"timestamp" {shown} is not in epoch seconds')
