"""zipper.sh: what the zips hold, that they are the same everywhere, and that they work."""

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
from local.lambda_runtime import LambdaFunction
from tests.events import sqs_event, sqs_record

ROOT = Path(__file__).resolve().parent.parent
SUBMIT, SOURCE = "ddg_metric_submit", "ddg_mock_datasource"
ZIPS = (f"{SUBMIT}.zip", f"{SOURCE}.zip")
INPUTS = ("zipper.sh", "requirements.txt", "ddg_*.py", "local/*.sh", "local/make_zip.py")
WHEELS = Path(sys.prefix, "wheels")  # of requirements.txt, fetched when .venv was made
LAMBDA_PACKAGES = Path(sys.prefix, "lambda-runtime")  # what Lambda brings, likewise
KEY = "a-key-of-who-builds"
[RUNTIME] = re.findall(r"^runtime=(\S+)", (ROOT / "zipper.sh").read_text(), re.MULTILINE)
MAGIC = b"\xf3\r\r\n"  # of Python 3.13's bytecode

pytestmark = pytest.mark.xdist_group("zips")


def copy_project(tree: Path, source: Path = ROOT) -> None:
    """Copy what zipper.sh needs, and nothing else: as in a fresh clone, there is no .venv."""
    for pattern in INPUTS:
        for file in source.glob(pattern):
            copy = tree / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)


def run_zipper(
    tree: Path, environment: Mapping[str, str] | None = None, umask: int = -1
) -> "subprocess.CompletedProcess[str]":
    """Run the tree's zipper.sh from another folder; packages come from WHEELS alone."""
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS.as_uri(), "PYTHON": sys.executable}
    return subprocess.run(
        [tree / "zipper.sh"],
        cwd="/",
        env={**os.environ, **offline, **(environment or {})},
        umask=umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def zips_of(tree: Path) -> list[bytes]:
    """Return the content of both zips."""
    return [(tree / name).read_bytes() for name in ZIPS]


def contents(tree: Path) -> set[str]:
    """Return the name of everything in the tree."""
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with both zips, made as in a fresh clone; their sizes are said."""
    tree = tmp_path_factory.mktemp("clone")
    copy_project(tree)
    before = contents(tree)
    run = run_zipper(tree)
    assert run.returncode == 0, run.stdout
    assert contents(tree) == before | {*ZIPS}
    for name, content in zip(ZIPS, zips_of(tree), strict=True):
        assert re.search(rf"^{name}: {len(content):,} bytes, \d+ files, ", run.stdout, re.M)
    return tree


@pytest.fixture(scope="module")
def submit_folder(build: Path) -> Path:
    """The submitter as it lies unpacked on Lambda."""
    folder = build.parent / "unpacked"
    with zipfile.ZipFile(build / ZIPS[0]) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize("way", ["environment", "pip.conf"])
def test_zips_are_the_same_wherever_whenever_and_by_whoever_they_are_made(
    build: Path, tmp_path: Path, way: str
) -> None:
    """Another folder, time, umask, home, hash seed, modes, settings of pip: the same bytes."""
    tree = tmp_path / "another place"
    copy_project(tree, build)
    for file in tree.glob("ddg_*.py"):
        file.chmod(0o600)
        os.utime(file, (1_000_000_000, 1_000_000_000))
    (tree / ".venv").symlink_to(sys.prefix)  # as after `make test`: its pip serves
    constraint = tmp_path / "constraint.txt"
    constraint.write_text("datadog==0.1")
    pip = {name: str(tmp_path / name) for name in ("root", "prefix", "target")}
    pip |= {"user": "true", "constraint": str(constraint)}
    if way == "pip.conf":
        settings = "".join(f"{name} = {value}\n" for name, value in pip.items())
        (tmp_path / "pip.conf").write_text(f"[global]\n{settings}")
        environment = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    else:
        environment = {f"PIP_{name.upper()}": value for name, value in pip.items()} | {
            "CDPATH": str(ROOT),
            "DATADOG_API_KEY": KEY,
            "HOME": str(tmp_path),
            "LC_ALL": "C",
            "PYTHONHASHSEED": "7",
            "PYTHONOPTIMIZE": "2",
            "SOURCE_DATE_EPOCH": "1000000000",
            "TZ": "Pacific/Kiritimati",
        }
    run = run_zipper(tree, environment, umask=0o077)
    assert run.returncode == 0, run.stdout
    assert zips_of(tree) == zips_of(build)
    assert all(KEY.encode() not in content for content in zips_of(tree))
    for name in ZIPS:  # whoever Lambda runs it as may read it
        entries = zipfile.ZipFile(tree / name).infolist()
        assert {entry.external_attr >> 16 for entry in entries} == {0o100644}


def test_zips_hold_what_is_needed_and_no_ballast(build: Path, submit_folder: Path) -> None:
    """Our modules; for the submitter the packages of requirements.txt, their licences. No boto3."""
    names = zipfile.ZipFile(build / ZIPS[1]).namelist()
    assert [name for name in names if not name.endswith(".pyc")] == [f"{SOURCE}.py"]
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    packages = {name.replace("-", "_") for name in pinned}
    top = {path.name for path in submit_folder.iterdir()} - {"__pycache__"}
    assert top >= packages | {"licenses", f"{SUBMIT}.py", "ddg_stats_file.py"}
    assert top - packages - {"licenses"} <= {file.name for file in ROOT.glob("ddg_*.py")}
    assert f"{SOURCE}.py" not in top
    assert {"datadog", "requests"} <= packages
    assert not {"boto3", "botocore"} & packages
    for name in contents(submit_folder):
        assert not re.search(r"(^|/)(tests?|bin|[^/]*\.dist-info|[^/]*\.so)(/|$)", name)
    assert {path.name for path in (submit_folder / "licenses").iterdir()} == packages


def test_each_module_can_be_imported(submit_folder: Path) -> None:
    """In a clean interpreter with what Lambda brings; of other files, the certificates are there.

    Most are imported with the handler, the rest late, at the first POST or in an error's handling.
    """
    files = {path.relative_to(submit_folder) for path in submit_folder.rglob("*") if path.is_file()}
    modules = {
        ".".join(file.with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
        if file.suffix == ".py"
    }
    others = {file for file in files - {*modules.values()} if file.parts[0] != "licenses"}
    script = f"""
import importlib, json, sys
sys.path[:0] = [{str(submit_folder)!r}]
sys.path.append({str(LAMBDA_PACKAGES)!r})
import {SUBMIT}
loaded = len(sys.modules)
files = {{name: importlib.import_module(name).__file__ for name in json.loads(sys.argv[1])}}
print(json.dumps([loaded, files]))
"""
    command = [sys.executable, "-I", "-S", "-B", "-c", script, json.dumps(sorted(modules))]
    run = subprocess.run(command, capture_output=True, text=True, env={})
    assert run.returncode == 0, run.stderr
    loaded, imported = json.loads(run.stdout)
    assert imported == {name: str(submit_folder / file) for name, file in modules.items()}
    assert loaded > 100
    assert {str(file) for file in others if "__pycache__" not in file.parts} == {
        "certifi/cacert.pem"
    }


@pytest.mark.parametrize("name", ZIPS)
def test_bytecode_serves_the_runtime_and_tells_nothing_of_the_build(build: Path, name: str) -> None:
    """A .pyc for each .py, for that Python, unchecked (PEP 552: flags 1), paths relative."""
    tag = f"cpython-{RUNTIME.replace('.', '')}"
    archive = zipfile.ZipFile(build / name)
    sources = [entry for entry in archive.namelist() if entry.endswith(".py")]
    compiled = [entry for entry in archive.namelist() if entry.endswith(".pyc")]
    if not compiled:
        pytest.skip("no Python of the runtime's version here")
    for source in sources:
        folder, _, module = source.rpartition("/")
        cached = f"{folder}/__pycache__/{module[:-3]}.{tag}.pyc".removeprefix("/")
        bytecode = archive.read(cached)
        assert bytecode[:8] == MAGIC + b"\x01\0\0\0", cached
        assert source.encode() in bytecode, cached
        assert str(build).encode() not in bytecode, cached
    assert len(compiled) == len(sources)


@pytest.mark.parametrize("works", [False, True])
def test_python_of_the_runtime_is_one_that_works(build: Path, tmp_path: Path, works: bool) -> None:
    """One that needs an LD_LIBRARY_PATH, or pyenv's shim, may not: then there is no bytecode."""
    zips = zips_of(build)
    if sys.version_info[:2] == (3, 13) or b".pyc" not in zips[0]:
        pytest.skip("needs a Python of the runtime's version, and to be another one")
    tree, shim = tmp_path / "tree", tmp_path / f"python{RUNTIME}"
    copy_project(tree, build)
    real = shutil.which(f"python{RUNTIME}")
    shim.write_text(f'#!/bin/sh\n[ "$LD_LIBRARY_PATH" ] && exec "{real}" "$@"\nexit 127\n')
    shim.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = run_zipper(tree, environment | {"LD_LIBRARY_PATH": "/nowhere"} if works else environment)
    assert run.returncode == 0, run.stdout
    assert ("not byte-compiled (no python3.13 works here)" in run.stdout) != works
    assert (zips_of(tree) == zips) == works


def test_zip_that_lacks_something_is_not_kept(tmp_path: Path) -> None:
    """It would deploy, and fail: here the handler wants a package that nobody unpacked."""
    handler, zipped = tmp_path / "handler.py", tmp_path / "handler.zip"
    handler.write_text("import boto3, json, datadog")
    make_zip = [ROOT / "local/make_zip.py", RUNTIME, handler, zipped]
    run = subprocess.run([sys.executable, "-I", *make_zip], capture_output=True, text=True)
    assert run.returncode == 1
    assert "handler.zip isn't kept, because it can't be imported" in run.stderr
    assert "No module named 'datadog'" in run.stderr
    assert not zipped.exists()


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
            f"{SOURCE}.py", lambda text: text + "\ndef (:\n", "SyntaxError", id="the second fails"
        ),
    ],
)
def test_failure_leaves_the_old_zips_and_nothing_else(
    build: Path, tmp_path: Path, file: str, damage: Callable[[str], str], said: str
) -> None:
    """Both are replaced, or none; the exit code and the message tell."""
    tree = tmp_path / "tree"
    shutil.copytree(build, tree)
    (tree / ".venv").symlink_to(sys.prefix)
    (tree / file).write_text(damage((tree / file).read_text()))
    with (tree / f"{SUBMIT}.py").open("a") as handler:
        handler.write("# a change that would give another zip\n")
    before = contents(tree)
    run = run_zipper(tree)
    assert run.returncode != 0
    assert said in run.stdout
    assert zips_of(tree) == zips_of(build)
    assert contents(tree) == before


def test_runtime_is_terraform_s() -> None:
    """The Python that the zips are made for is the one that the functions run on."""
    runtimes = re.findall(r'runtime *= *"python([\d.]+)"', (ROOT / "main.tf").read_text())
    assert set(runtimes) == {RUNTIME}


def test_zips_work_on_lambda(build: Path, moto: str, datadog: DatadogServer) -> None:
    """A file that the generator's zip writes is submitted by the submitter's, with its numbers."""
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
        LambdaFunction(
            build / f"{name}.zip", f"{name}.lambda_handler", environment, packages=LAMBDA_PACKAGES
        )
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
