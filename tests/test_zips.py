"""zipper.sh: what the zips contain, that they are the same everywhere, and that they work."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.datadog_server import DatadogServer
from local.lambda_runtime import LAMBDA_PACKAGES, LambdaFunction
from tests.events import sqs_event, sqs_record
from tests.zips import ROOT

SUBMIT, SOURCE = "ddg_metric_submit", "ddg_mock_datasource"
ZIPS = (f"{SUBMIT}.zip", f"{SOURCE}.zip")
INPUTS = ("zipper.sh", "requirements.txt", "ddg_*.py", "local/*.sh", "local/make_zip.py")
WHEELS = Path(sys.prefix, "wheels")  # of requirements.txt, fetched when .venv was made
[RUNTIME] = re.findall(r"^runtime=(\S+)", (ROOT / "zipper.sh").read_text(), re.MULTILINE)
UNCHECKED = b"\xf3\r\r\n" + b"\1\0\0\0"  # Python 3.13's magic number, PEP 552's flags

pytestmark = pytest.mark.xdist_group("zips")


def copy_project(tree: Path) -> Path:
    """Copy only what zipper.sh needs: as in a fresh clone, there is no .venv."""
    for pattern in INPUTS:
        for file in ROOT.glob(pattern):
            copy = tree / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    return tree


def run_zipper(
    tree: Path, code: int = 0, umask: int = -1, environment: Mapping[str, str] | None = None
) -> str:
    """Run the tree's zipper.sh from another folder, packages from WHEELS; return its output."""
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS.as_uri(), "PYTHON": sys.executable}
    run = subprocess.run(
        [tree / "zipper.sh"],
        cwd="/",
        env={**os.environ, **offline, **(environment or {})},
        umask=umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == code, run.stdout
    return run.stdout


def zips_of(tree: Path) -> list[bytes]:
    return [(tree / name).read_bytes() for name in ZIPS]


def contents(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with both zips, made as in a fresh clone."""
    tree = copy_project(tmp_path_factory.mktemp("clone"))
    before = contents(tree)
    printed = run_zipper(tree)
    assert contents(tree) == before | {*ZIPS}
    for name, content in zip(ZIPS, zips_of(tree), strict=True):
        assert re.search(rf"^{name}: {len(content):,} bytes, \d+ files, ", printed, re.M)
    return tree


def test_zips_are_the_same_wherever_whenever_and_by_whomever_they_are_made(
    build: Path, tmp_path: Path
) -> None:
    """Folder, time, umask, home, locale and pip's settings of where to install don't matter."""
    tree = copy_project(tmp_path / "another place")
    for file in tree.glob("ddg_*.py"):
        file.chmod(0o600)
        os.utime(file, (1_000_000_000, 1_000_000_000))
    (tree / ".venv").symlink_to(sys.prefix)  # as after `make test`, which has pip
    (tmp_path / "constraint.txt").write_text("datadog==0.1")
    settings = f"user = true\nconstraint = {tmp_path}/constraint.txt\n"
    (tmp_path / "pip.conf").write_text(f"[global]\n{settings}")
    environment = {f"PIP_{name}": str(tmp_path / name) for name in ("ROOT", "PREFIX", "TARGET")} | {
        "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        "CDPATH": str(ROOT),
        "HOME": str(tmp_path),
        "LC_ALL": "C",
        "PYTHONHASHSEED": "7",
        "PYTHONOPTIMIZE": "2",
        "TZ": "Pacific/Kiritimati",
    }
    run_zipper(tree, umask=0o077, environment=environment)
    assert zips_of(tree) == zips_of(build)
    for name in ZIPS:  # any user may read it, as Lambda needs
        entries = zipfile.ZipFile(tree / name).infolist()
        assert {entry.external_attr >> 16 for entry in entries} == {0o100644}


IMPORT_ALL = """
import importlib, json, sys
sys.path[:] = [sys.argv[1], *sys.path, sys.argv[2]]
for name in sys.argv[3:]:
    try:
        print(importlib.import_module(name).__file__)
    except ModuleNotFoundError as error:
        print("missing", error.name)
"""


def test_submitter_s_zip_has_what_is_needed_and_no_ballast(build: Path, tmp_path: Path) -> None:
    """Each import statement finds its module, but for optional packages that aren't installed."""
    names = zipfile.ZipFile(build / ZIPS[1]).namelist()
    assert [name for name in names if not name.endswith(".pyc")] == [f"{SOURCE}.py"]
    archive = zipfile.ZipFile(build / ZIPS[0])
    archive.extractall(tmp_path)
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    packages = {name.replace("-", "_") for name in pinned}
    top = {path.name for path in tmp_path.iterdir()} - {"__pycache__", "licenses"}
    assert {path.name for path in (tmp_path / "licenses").iterdir()} == packages
    assert {"datadog", "requests"} <= packages <= top
    ours = {file.name for file in ROOT.glob("ddg_*.py")} - {f"{SOURCE}.py"}
    assert {f"{SUBMIT}.py", "ddg_stats_file.py"} <= top - packages <= ours
    files = {name for name in archive.namelist() if not name.startswith("licenses/")}
    assert not any(re.search(r"(^|/)(tests?|bin|dogshell)(/|$)", name) for name in files)
    assert {name for name in files if not re.search(r"\.pyc?$", name)} == {"certifi/cacert.pem"}

    modules = [name[:-3].removesuffix("/__init__") for name in files if name.endswith(".py")]
    names = [name.replace("/", ".") for name in sorted(modules)]
    command = [sys.executable, "-I", "-S", "-B", "-c", IMPORT_ALL, str(tmp_path)]
    command += [str(LAMBDA_PACKAGES), *names]
    run = subprocess.run(command, capture_output=True, text=True, env={})
    assert run.returncode == 0, run.stderr
    imported = run.stdout.splitlines()
    assert [line for line in imported if not line.startswith(str(tmp_path))] == ["missing h2"]
    assert len(imported) == len(names) > 100


@pytest.mark.parametrize("name", ZIPS)
def test_bytecode_is_the_runtime_s_and_does_not_contain_the_build_s_folder(
    build: Path, name: str
) -> None:
    tag = f"cpython-{RUNTIME.replace('.', '')}"
    archive = zipfile.ZipFile(build / name)
    compiled = [entry for entry in archive.namelist() if entry.endswith(".pyc")]
    if not compiled:
        pytest.skip("no Python of the runtime's version here")
    for cached in compiled:
        bytecode = archive.read(cached)
        source = cached.replace("__pycache__/", "").replace(f".{tag}.pyc", ".py")
        assert bytecode.startswith(UNCHECKED), cached
        assert source.encode() in bytecode, cached
        assert str(build).encode() not in bytecode, cached
    assert len(compiled) == sum(entry.endswith(".py") for entry in archive.namelist())


@pytest.mark.parametrize("works", [False, True])
def test_python_of_the_runtime_is_one_that_works(build: Path, tmp_path: Path, works: bool) -> None:
    """One may need LD_LIBRARY_PATH, or be pyenv's shim: if it fails there is no bytecode."""
    zips = zips_of(build)
    if sys.version_info[:2] == (3, 13) or b".pyc" not in zips[0]:
        pytest.skip("needs a Python of the runtime's version, and to be another one")
    tree, shim = copy_project(tmp_path / "tree"), tmp_path / f"python{RUNTIME}"
    real = shutil.which(f"python{RUNTIME}")
    shim.write_text(f'#!/bin/sh\n[ "$LD_LIBRARY_PATH" ] && exec "{real}" "$@"\nexit 127\n')
    shim.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {"LD_LIBRARY_PATH": "/nowhere"} if works else {}
    printed = run_zipper(tree, environment=environment)
    assert ("not byte-compiled (no python3.13 works here)" in printed) != works
    assert (zips_of(tree) == zips) == works


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        pytest.param(
            "requirements.txt",
            lambda text: re.sub(r"(?<=--hash=sha256:).{8}", 8 * "0", text),
            "THESE PACKAGES DO NOT MATCH THE HASHES",
            id="a package isn't the pinned one",
        ),
        pytest.param(
            f"{SOURCE}.py", lambda text: text + "\ndef (:\n", "SyntaxError", id="wrong syntax"
        ),
        pytest.param(
            f"{SOURCE}.py",
            lambda text: text + "\nimport datadog\n",
            "zip isn't kept, because it can't be imported",
            id="a package is missing",
        ),
    ],
)
def test_failure_leaves_the_old_zips_and_nothing_else(
    build: Path, tmp_path: Path, file: str, damage: Callable[[str], str], said: str
) -> None:
    """Also if only the second zip fails."""
    tree = tmp_path / "tree"
    shutil.copytree(build, tree)
    (tree / ".venv").symlink_to(sys.prefix)
    (tree / file).write_text(damage((tree / file).read_text()))
    with (tree / f"{SUBMIT}.py").open("a") as handler:
        handler.write("# a change that would give another zip\n")
    before = contents(tree)
    assert said in run_zipper(tree, code=1)
    assert zips_of(tree) == zips_of(build)
    assert contents(tree) == before


def test_runtime_is_terraform_s() -> None:
    runtimes = re.findall(r'runtime *= *"python([\d.]+)"', (ROOT / "main.tf").read_text())
    assert set(runtimes) == {RUNTIME}


def test_zips_work_on_lambda(build: Path, moto: str, datadog: DatadogServer) -> None:
    """The submitter's zip submits the file that the generator's zip writes."""
    s3 = boto3.client("s3", endpoint_url=moto)
    s3.create_bucket(Bucket="zips")
    environment = {
        "AWS_ENDPOINT_URL": moto,
        "DATADOG_API_KEY": "test-key",
        "DATADOG_HOST": datadog.url,
        "REJECTED_QUEUE_URL": f"{moto}/123456789012/rejected",
        "STATS_BUCKET": "zips",
    }
    generator, submitter = (
        LambdaFunction(build / f"{name}.zip", f"{name}.lambda_handler", environment)
        for name in (SOURCE, SUBMIT)
    )
    with generator, submitter:
        written: Any = generator.invoke({})
        answer = submitter.invoke(sqs_event([sqs_record(written["keys"], bucket="zips")]))
    [key] = written["keys"]
    stats = json.loads(s3.get_object(Bucket="zips", Key=key)["Body"].read())
    assert answer == {"batchItemFailures": []}, submitter.log
    assert datadog.points == {
        (metric, ("job:mock-datasource",)): {stats["timestamp"]: stats[metric]}
        for metric in ("sample.stats", "processed.data")
    }
