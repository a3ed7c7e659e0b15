"""The README: each command in it is run by a test, or needs an account and is named here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]

# Command -> what runs it; those that need an account are what docs/verified.md is about.
RUN_BY = {
    "make demo": "tests/test_local.py, local.demo",
    "make local": "tests/test_page.py, local.live",
    "./zipper.sh": "tests/test_zips.py",
    "terraform init": "tests/terraform/test_life.py",
    "terraform apply": "tests/terraform/test_life.py",
    "terraform apply -var 'ddg_api_key=X' -var 'ddg_app_key=X'": "tests/terraform/test_cli.py",
    "terraform destroy": "tests/terraform/test_life.py",
    "make venv": "make test, which makes it too",
    ".venv/bin/ddg-ops check --canary": "tests/test_ops.py",
    "make test": "whoever reads this",
}
NEEDS_AN_ACCOUNT = {
    'aws s3 cp stats.json "s3://$(terraform output -raw bucket)/stats/nightly/$(date +%s).json"',
}
RUN_HERE = [c for c in COMMANDS if c not in RUN_BY and c not in NEEDS_AN_ACCOUNT]


def test_what_is_listed_is_there() -> None:
    """No row of the lists above outlives its command."""
    assert RUN_BY.keys() <= set(COMMANDS)
    assert set(COMMANDS) >= NEEDS_AN_ACCOUNT


def test_other_commands_run_as_written(tmp_path: Path) -> None:
    """In the order in which they stand; only the Python is this one."""
    assert RUN_HERE
    script = "\n".join(RUN_HERE).replace(".venv/bin/ddg-ops", '"$PYTHON" -m ddg_ops')
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
    }
    run = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 points" in run.stdout


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_link_leads_somewhere(link: str) -> None:
    """Links into the repository; others can't be followed here."""
    assert link.startswith("https://") or (ROOT / link).exists()


def test_one_sitting() -> None:
    """100 to 200 lines."""
    assert 100 <= len(README.splitlines()) <= 200
