"""The README's commands run, and its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]

# Command -> what runs it; docs/verified.md says which need an account.
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
    "make test": "itself",
}
UPLOAD = "aws s3 cp stats.json "  # needs an account


def test_commands_run_as_written(tmp_path: Path) -> None:
    """All except those above, in their order."""
    assert RUN_BY.keys() <= set(COMMANDS)
    others = [each for each in COMMANDS if each not in RUN_BY and not each.startswith(UPLOAD)]
    script = "\n".join(others).replace(".venv/bin/ddg-ops", f"{sys.executable} -m ddg_ops")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    bash = ["/bin/bash", "-euo", "pipefail", "-c", script]
    run = subprocess.run(bash, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 points" in run.stdout


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_link_leads_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()


def test_length() -> None:
    assert 120 <= len(README.splitlines()) <= 180
