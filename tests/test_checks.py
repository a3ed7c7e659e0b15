"""Linters and type checks, so that one command says all."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SCRIPTS = sorted([ROOT / "zipper.sh", ROOT / ".ci/run", *(ROOT / "local").glob("*.sh")])


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check"], id="ruff check"),
        pytest.param(["ruff", "format", "--check", "--diff"], id="ruff format"),
        pytest.param(["mypy"], id="mypy"),  # strict, says pyproject.toml
        pytest.param(["shellcheck", *map(str, SCRIPTS)], id="shellcheck"),
    ],
)
def test_check_finds_nothing(command: list[str]) -> None:
    """The tool, with the settings of pyproject.toml, has nothing to say about the project."""
    tool = [str(BIN / command[0]), *command[1:]]
    run = subprocess.run(tool, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
