"""Checks of the Terraform files that need no provider."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_settings import ROOT, attributes, description, read_blocks

FOLDERS = [ROOT, ROOT / "dashboard"]


@pytest.mark.parametrize(("name", "block"), read_blocks(ROOT, "variable").items())
def test_variable_is_described_and_checked(name: str, block: str) -> None:
    """Unless it is a switch, a validation says which values are right."""
    assert len(description(block)) > 40
    messages = attributes(block, "error_message")
    assert messages or attributes(block, "type") == ["bool"]
    assert all(message.startswith(f'"{name} ') for message in messages)


def test_keys_are_sensitive() -> None:
    """Terraform shows only whether they are given."""
    for folder in FOLDERS:
        for name, block in read_blocks(folder, "variable").items():
            is_key = name in ("ddg_api_key", "ddg_app_key")
            assert attributes(block, "sensitive") == ["true"] * is_key
    files = [*ROOT.glob("*.tf"), *ROOT.glob("dashboard/*.tf")]
    shown = re.findall(r"nonsensitive\((.*)\)", "".join(file.read_text() for file in files))
    assert shown == ["var.ddg_api_key != null", "var.ddg_app_key != null"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_output_is_described(folder: Path) -> None:
    outputs = read_blocks(folder, "output")
    assert outputs
    assert all(description(block).endswith(".") for block in outputs.values())


def test_skipped_check_has_its_reason() -> None:
    skipped = re.findall(r"^  - CKV.*$", (ROOT / ".checkov.yaml").read_text(), re.MULTILINE)
    assert skipped
    assert [line for line in skipped if not re.fullmatch(r"  - CKV_AWS_\d+ # \S.{30,}", line)] == []


@pytest.mark.skipif(not shutil.which("terraform"), reason="there is no terraform here")
def test_files_are_formatted() -> None:
    command = ["terraform", "fmt", "-check", "-diff", "-recursive"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
