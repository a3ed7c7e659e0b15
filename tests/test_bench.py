"""make bench measures everything and names each missed target."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local.bench import compare

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("target", "row"),
    [
        pytest.param({"least": 3}, ("3 x", "at least 3 x", "reached"), id="least"),
        pytest.param({"least": 3.1}, ("3 x", "at least 3.1 x", "missed"), id="less"),
        pytest.param({"most": 0.4}, ("0.333 x", "at most 0.4 x", "reached"), id="most"),
        pytest.param({"most": 0.3}, ("0.333 x", "at most 0.3 x", "missed"), id="more"),
    ],
)
def test_a_ratio_is_compared_with_its_target(target: dict[str, Any], row: tuple[str, ...]) -> None:
    """The ratio is the median of 2, 3 and 8."""
    assert compare("floor", [2, 30, 8], [1, 10, 1], **target) == ("floor", "8 ms", "1 ms", *row)


def test_smallest_bench_misses_a_target(tmp_path: Path) -> None:
    """Without latency no contender is 150 times as slow. It still writes tables and picture."""
    page = tmp_path / "performance.md"
    marked = [f"<!-- {name}: begin -->\nold\n<!-- {name}: end -->\n" for name in ("bench", "delay")]
    page.write_text("before\n{}after\n{}".format(*marked))
    sizes = ["--quick", "60", "--files", "10", "--s3-latency", "0", "--datadog-latency", "0"]
    command = [sys.executable, "-m", "local.bench", *sizes, "--output", str(tmp_path)]
    bench = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (bench.returncode, bench.stderr[:14]) == (1, "Missed: plain;")
    before, result, after, delay, _ = re.split(
        "<!-- [a-z]+: begin -->\n|\n<!-- [a-z]+: end -->", page.read_text()
    )
    assert (before, after) == ("before\n", "\nafter\n")
    assert result in bench.stdout
    assert re.search(r"from S3's event to Datadog's 202 +\| [\d,]+ ms ", delay)
    assert re.search(r"floor, POSTs per batch +\| 1 +\| 1 +\| 1 x ", result)
    assert len(re.findall("reached|missed", result)) == 16
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
