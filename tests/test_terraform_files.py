"""What can be told of the Terraform files without a provider; tests/terraform has the rest."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.test_settings import ROOT, read_blocks

FOLDERS = [pytest.param(ROOT, id="stack"), pytest.param(ROOT / "dashboard", id="dashboard")]


def variables(*folders: Path) -> list[Any]:
    """Return a parameter for each variable of the roots."""
    return [
        pytest.param(name, block, id=f"{folder.name}.{name}" if folder != ROOT else name)
        for folder in folders
        for name, block in read_blocks(folder, "variable").items()
    ]


@pytest.mark.parametrize(("name", "block"), variables(ROOT))
def test_variable_says_what_is_right(name: str, block: dict[str, Any]) -> None:
    """Each has a type, a description and, unless it is a switch, a rule that says what to give."""
    assert block["type"]
    assert len(json.loads(block["description"])) > 40
    rules = block.get("validation", [])
    assert rules or block["type"] == "bool"
    for rule in rules:
        assert json.loads(rule["error_message"]).startswith(name)


def test_keys_are_sensitive() -> None:
    """Terraform shows no key; nor does any file but main.tf lift what is sensitive."""
    for folder in (ROOT, ROOT / "dashboard"):
        for name, block in read_blocks(folder, "variable").items():
            assert block.get("sensitive", False) == (name in ("ddg_api_key", "ddg_app_key"))
    files = [*ROOT.glob("*.tf"), *ROOT.glob("dashboard/*.tf")]
    shown = re.findall(r"nonsensitive\((.*)\)", "".join(file.read_text() for file in files))
    assert shown == ["var.ddg_api_key != null", "var.ddg_app_key != null"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_output_is_described(folder: Path) -> None:
    """Each output says what it is good for."""
    outputs = read_blocks(folder, "output")
    assert outputs
    assert all(json.loads(block["description"]).endswith(".") for block in outputs.values())


def test_alarm_says_what_to_do_first() -> None:
    """Whoever is woken by an alarm reads in it where to begin."""
    stack = (ROOT / "main.tf").read_text()
    descriptions = re.findall(
        r"(?:description|alarm_description) += (\".*\")", stack.split("Alarms\n")[1]
    )
    assert len(descriptions) == 9
    assert all(" First " in description for description in descriptions)


def test_skipped_check_has_its_reason() -> None:
    """checkov's settings say behind each check why it is skipped."""
    skipped = re.findall(r"^  - CKV.*$", (ROOT / ".checkov.yaml").read_text(), re.MULTILINE)
    assert skipped
    assert [line for line in skipped if not re.fullmatch(r"  - CKV_AWS_\d+ # \S.{30,}", line)] == []


@pytest.mark.skipif(not shutil.which("terraform"), reason="there is no terraform here")
def test_files_are_formatted() -> None:
    """`terraform fmt` has nothing to do, in the tests neither."""
    command = ["terraform", "fmt", "-check", "-diff", "-recursive"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
