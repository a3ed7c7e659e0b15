"""find_python.sh chooses the Python to build with; make_venv.sh uses it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "local/find_python.sh"
WORKS = f'exec "{sys.executable}" "$@"'
FAILS = "exit 127"  # a shim of pyenv's, too old, or without venv


@pytest.mark.parametrize(
    ("pythons", "asked_for", "found"),
    [
        pytest.param({"python3": WORKS, "python3.12": WORKS}, "", "python3.12", id="newest"),
        pytest.param({"python3": WORKS, "python3.13": FAILS}, "", "python3", id="one that runs"),
        pytest.param({"python3.13": WORKS, "mine": WORKS}, "mine", "mine", id="the one asked for"),
        pytest.param({"python3.13": FAILS}, "", None, id="none"),
        pytest.param({"python3.13": WORKS, "mine": FAILS}, "mine", None, id="asked for, unfit"),
    ],
)
def test_python_is_one_that_can_make_a_venv(
    tmp_path: Path, pythons: dict[str, str], asked_for: str, found: str | None
) -> None:
    """A name on the PATH isn't enough; without a Python the message says what to install."""
    for name, does in pythons.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    run = subprocess.run(
        ["/bin/bash", SCRIPT],
        env={"PATH": str(tmp_path), "PYTHON": asked_for},
        capture_output=True,
        text=True,
    )
    if found:
        assert (run.returncode, run.stdout) == (0, f"{tmp_path / found}\n")
    else:
        assert (run.returncode, run.stdout) == (1, "")
        assert f"tried: {asked_for or 'python3.13 '}" in run.stderr
        assert "apt install python3-venv" in run.stderr


def test_venv_is_made_where_the_script_is(tmp_path: Path) -> None:
    """Although CDPATH names another folder with a local/."""
    (tmp_path / "elsewhere/local").mkdir(parents=True)
    (tmp_path / "clone/local").mkdir(parents=True)
    for name in ("find_python.sh", "make_venv.sh"):
        shutil.copy(SCRIPT.with_name(name), tmp_path / "clone/local")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" != -m ] || pwd >"{tmp_path}/pwd"; [ "$1" != -m ]')
    python.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), "CDPATH": "../elsewhere"}
    command = ["/bin/bash", "local/make_venv.sh"]
    subprocess.run(command, cwd=tmp_path / "clone", env=environment, capture_output=True)
    assert (tmp_path / "pwd").read_text() == f"{tmp_path}/clone\n"
