"""Linters and type checks, which `make test` runs with the tests."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
SCRIPTS = sorted(
    [ROOT / name for name in ("zipper.sh", ".ci/browser", ".ci/run", ".ci/terraform")]
    + [script for folder in ("local", "docs/examples") for script in (ROOT / folder).glob("*.sh")]
)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([sys.executable, "-m", "ruff", "check"], id="ruff check"),
        pytest.param([sys.executable, "-m", "ruff", "format", "--diff"], id="ruff format"),
        pytest.param([sys.executable, "-m", "mypy"], id="mypy"),  # strict, says pyproject.toml
        pytest.param(
            [SHELLCHECK, *SCRIPTS],
            id="shellcheck",
            marks=pytest.mark.skipif(not SHELLCHECK.exists(), reason="no wheel of shellcheck here"),
        ),
    ],
)
def test_check_finds_nothing(command: list[str | Path]) -> None:
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_sources_hold_no_key() -> None:
    for file in (*ROOT.glob("ddg_*.py"), *ROOT.glob("*.tf")):
        assert not re.search(r"\b([0-9a-f]{32}|[0-9a-f]{40})\b", file.read_text()), file
