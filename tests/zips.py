"""Zips of the functions from this Python's packages, without a download."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUBMITTER_PACKAGES = ("certifi", "charset_normalizer", "datadog", "idna", "requests", "urllib3")


def make_zip(path: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write a zip with these files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_zips(folder: Path) -> None:
    """Zip both functions with the packages of this Python."""
    modules = {file.name: file.read_bytes() for file in ROOT.glob("ddg_*.py")}
    packages = {}
    for name in SUBMITTER_PACKAGES:
        package = Path(str(importlib.import_module(name).__file__)).parent
        for file in [*package.rglob("*.py"), *package.glob("*.pem")]:
            packages[str(file.relative_to(package.parent))] = file.read_bytes()
    make_zip(folder / "ddg_metric_submit.zip", {**modules, **packages})
    make_zip(folder / "ddg_mock_datasource.zip", modules)
