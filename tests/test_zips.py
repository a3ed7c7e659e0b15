"""zipper.sh: what the zips hold, that they are the same everywhere, and that they work."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest

from local.datadog_server import DatadogServer
from local.lambda_runtime import LambdaFunction
from local.make_zip import find_python

ROOT = Path(__file__).resolve().parent.parent
SUBMIT, SOURCE = "ddg_metric_submit", "ddg_mock_datasource"
ZIPS = (f"{SUBMIT}.zip", f"{SOURCE}.zip")
INPUTS = ("zipper.sh", "requirements.txt", "ddg_*.py", "local/*.sh", "local/make_zip.py")
WHEELS = Path(sys.prefix, "wheels")  # of requirements.txt, fetched when .venv was made
LAMBDA_PACKAGES = Path(sys.prefix, "lambda-runtime")  # what Lambda brings, likewise
KEY = "a-key-of-who-builds"

pytestmark = pytest.mark.xdist_group("zips")


class Build(NamedTuple):
    """A copy of the project in which zipper.sh ran, and what that printed."""

    tree: Path
    printed: str

    def unpack(self, name: str) -> Path:
        """Return a folder with the zip's content."""
        folder = self.tree.parent / f"{name} unpacked"
        with zipfile.ZipFile(self.tree / f"{name}.zip") as archive:
            archive.extractall(folder)
        return folder


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


def digests(tree: Path) -> list[str]:
    """Return each zip's SHA-256."""
    return [hashlib.sha256((tree / name).read_bytes()).hexdigest() for name in ZIPS]


def contents(tree: Path) -> set[str]:
    """Return the name of everything in the tree."""
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Both zips, made as in a fresh clone."""
    tree = tmp_path_factory.mktemp("clone")
    copy_project(tree)
    before = contents(tree)
    run = run_zipper(tree)
    assert run.returncode == 0, run.stdout
    assert contents(tree) == before | {*ZIPS}
    return Build(tree, run.stdout)


@pytest.fixture(scope="module")
def submit_folder(build: Build) -> Path:
    """The submitter as it lies unpacked on Lambda."""
    return build.unpack(SUBMIT)


@pytest.fixture(params=ZIPS)
def archive(request: pytest.FixtureRequest, build: Build) -> Iterator[zipfile.ZipFile]:
    """One zip after the other."""
    with zipfile.ZipFile(build.tree / request.param) as archive:
        yield archive


def has_runtime() -> bool:
    """Tell whether this machine can make the runtime's bytecode."""
    return find_python(runtime_version()) is not None


def runtime_version() -> str:
    """Return the version of the functions' Python, as zipper.sh has it."""
    [version] = re.findall(r"^runtime=(\S+)", (ROOT / "zipper.sh").read_text(), re.MULTILINE)
    return str(version)


def test_zips_are_the_same_wherever_whenever_and_by_whoever_they_are_made(
    build: Build, tmp_path: Path
) -> None:
    """Another folder, time, time zone, locale, umask, home, hash seed and modes: the same bytes."""
    tree = tmp_path / "another place"
    copy_project(tree, build.tree)
    for file in tree.glob("ddg_*.py"):
        file.chmod(0o600)
        os.utime(file, (1_000_000_000, 1_000_000_000))
    (tree / ".venv").symlink_to(sys.prefix)  # as after `make test`: its pip serves
    environment = {
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
    assert digests(tree) == digests(build.tree)
    assert all(KEY.encode() not in (tree / name).read_bytes() for name in ZIPS)


def test_nothing_in_the_zip_tells_when_and_by_whom_it_was_made(archive: zipfile.ZipFile) -> None:
    """Times, modes, order, compression, comments: the same for every entry."""
    entries = archive.infolist()
    fixed = {
        (
            entry.date_time,
            entry.external_attr >> 16,
            entry.create_system,
            entry.compress_type,
            entry.extra,
            entry.comment,
        )
        for entry in entries
    }
    assert fixed == {((1980, 1, 1, 0, 0, 0), 0o100644, 3, zipfile.ZIP_DEFLATED, b"", b"")}
    assert archive.namelist() == sorted({entry.filename for entry in entries})
    assert archive.comment == b""


def test_sizes_and_bytecode_are_said(build: Build) -> None:
    """A line for each zip: its size, and whether it is byte-compiled."""
    how = "byte-compiled for Python" if has_runtime() else "not byte-compiled"
    for name in ZIPS:
        size = (build.tree / name).stat().st_size
        assert re.search(rf"^{name}: {size:,} bytes, \d+ files, {how}", build.printed, re.MULTILINE)


def test_generator_brings_nothing_but_itself(build: Build) -> None:
    """boto3 comes with the runtime."""
    names = zipfile.ZipFile(build.tree / f"{SOURCE}.zip").namelist()
    assert [name for name in names if not name.endswith(".pyc")] == [f"{SOURCE}.py"]


def test_submitter_has_its_packages_and_no_ballast(submit_folder: Path) -> None:
    """At its top: our modules, the packages of requirements.txt, their licences. No boto3."""
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    packages = {name.replace("-", "_") for name in pinned}
    top = {path.name for path in submit_folder.iterdir()} - {"__pycache__"}
    ours = top - packages - {"licenses"}
    assert top >= packages | {"licenses", f"{SUBMIT}.py", "ddg_stats_file.py"}
    assert ours <= {file.name for file in ROOT.glob("ddg_*.py")} - {f"{SOURCE}.py"}
    assert {"datadog", "requests"} <= packages
    assert not {"boto3", "botocore"} & packages
    for name in contents(submit_folder):
        assert not re.search(r"(^|/)(tests?|bin|[^/]*\.dist-info|[^/]*\.so)(/|$)", name)
    assert {path.name for path in (submit_folder / "licenses").iterdir()} == packages


def imported_names(source: str, package: str) -> set[str]:
    """Return the absolute name of all that a module's import statements may mean."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def test_each_file_is_imported_or_needed_by_an_import_or_a_licence(submit_folder: Path) -> None:
    """In a clean interpreter with what Lambda brings: every module imports, and something asks it.

    Most are there as soon as the handler is imported. The rest stand in an import statement that
    runs later.
    """
    modules, named, others = {}, set(), set()
    for path in (path for path in submit_folder.rglob("*") if path.is_file()):
        file = path.relative_to(submit_folder)
        if file.suffix == ".py":
            parts = file.with_suffix("").parts
            package = parts[:-1]
            name = ".".join(package if parts[-1] == "__init__" else parts)
            modules[name] = str(file)
            named |= imported_names(path.read_text(), ".".join(package))
        elif "__pycache__" in file.parts:
            source = file.parent.parent / f"{file.name.partition('.')[0]}.py"
            assert (submit_folder / source).exists(), file
        elif file.parts[0] != "licenses":
            others.add(str(file))
    script = f"""
import importlib, json, sys
sys.path[:0] = [{str(submit_folder)!r}]
sys.path.append({str(LAMBDA_PACKAGES)!r})
import {SUBMIT}, certifi
loaded = list(sys.modules)
for name in json.loads(sys.argv[1]):
    file = importlib.import_module(name).__file__
    assert file.startswith({str(submit_folder)!r}), file
print(json.dumps([certifi.where(), loaded]))
"""
    command = [sys.executable, "-I", "-S", "-B", "-c", script, json.dumps(sorted(modules))]
    run = subprocess.run(command, capture_output=True, text=True, env={})
    assert run.returncode == 0, run.stderr
    certificates, loaded = json.loads(run.stdout)
    assert {str(submit_folder / name) for name in others} == {certificates}
    assert len(modules.keys() & set(loaded)) > 100
    assert modules.keys() - set(loaded) - named == set()


@pytest.mark.skipif(not has_runtime(), reason="no Python of the runtime's version here")
def test_bytecode_serves_the_runtime_and_tells_nothing_of_the_build(
    archive: zipfile.ZipFile, build: Build
) -> None:
    """A .pyc for each .py, for that Python, unchecked (PEP 552: flags 1), paths relative."""
    python = find_python(runtime_version())
    assert python
    show = "import importlib.util; print(importlib.util.MAGIC_NUMBER.hex())"
    magic = subprocess.run([python, "-c", show], capture_output=True, text=True, check=True).stdout
    sources = [name for name in archive.namelist() if name.endswith(".py")]
    for source in sources:
        folder, _, name = source.rpartition("/")
        tag = f"cpython-{runtime_version().replace('.', '')}"
        cached = f"{folder}/__pycache__/{name[:-3]}.{tag}.pyc".removeprefix("/")
        bytecode = archive.read(cached)
        assert bytecode[:8] == bytes.fromhex(magic) + b"\x01\0\0\0", cached
        assert source.encode() in bytecode, cached
        assert str(build.tree).encode() not in bytecode, cached
    assert len([name for name in archive.namelist() if name.endswith(".pyc")]) == len(sources)


def test_without_the_runtime_s_python_there_is_no_bytecode(tmp_path: Path) -> None:
    """A python3.13 that doesn't run, as pyenv's may not, is none; that it is missing is said."""
    version = "3.99"
    shim = tmp_path / f"python{version}"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    zipped = tmp_path / "source.zip"
    make_zip, handler = ROOT / "local/make_zip.py", ROOT / f"{SOURCE}.py"
    run = subprocess.run(
        [sys.executable, "-I", make_zip, version, handler, zipped],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert zipfile.ZipFile(zipped).namelist() == [f"{SOURCE}.py"]
    assert "1 files, not byte-compiled (no python3.99 here)" in run.stdout


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
    build: Build, tmp_path: Path, file: str, damage: Callable[[str], str], said: str
) -> None:
    """Both are replaced, or none; the exit code and the message tell."""
    tree = tmp_path / "tree"
    shutil.copytree(build.tree, tree)
    (tree / ".venv").symlink_to(sys.prefix)
    (tree / file).write_text(damage((tree / file).read_text()))
    with (tree / f"{SUBMIT}.py").open("a") as handler:
        handler.write("# a change that would give another zip\n")
    before = contents(tree)
    run = run_zipper(tree)
    assert run.returncode != 0
    assert said in run.stdout
    assert digests(tree) == digests(build.tree)
    assert contents(tree) == before


def test_runtime_is_terraform_s() -> None:
    """The Python that the zips are made for is the one that the functions run on."""
    assert set(re.findall(r'runtime *= *"python([\d.]+)"', (ROOT / "main.tf").read_text())) == {
        runtime_version()
    }


def test_zips_work_on_lambda(build: Build, moto: str, datadog: DatadogServer) -> None:
    """A file that the generator's zip writes is submitted by the submitter's, with its numbers."""
    s3 = boto3.client("s3", endpoint_url=moto)
    s3.create_bucket(Bucket="zips")
    generator = LambdaFunction(
        build.tree / ZIPS[1],
        f"{SOURCE}.lambda_handler",
        {"AWS_ENDPOINT_URL": moto, "STATS_BUCKET": "zips"},
        packages=LAMBDA_PACKAGES,
    )
    submitter = LambdaFunction(
        build.tree / ZIPS[0],
        f"{SUBMIT}.lambda_handler",
        {
            "AWS_ENDPOINT_URL": moto,
            "DATADOG_API_KEY": "test-key",
            "DATADOG_HOST": datadog.url,
            "REJECTED_QUEUE_URL": f"{moto}/123456789012/rejected",
        },
        packages=LAMBDA_PACKAGES,
    )
    with generator, submitter:
        written = generator.invoke({})
        assert isinstance(written, dict)
        [key] = written["keys"]
        named = {"bucket": {"name": "zips"}, "object": {"key": key}}
        message = {"messageId": "1", "body": json.dumps({"Records": [{"s3": named}]})}
        answer = submitter.invoke({"Records": [message]})
    stats = json.loads(s3.get_object(Bucket="zips", Key=key)["Body"].read())
    assert answer == {"batchItemFailures": []}, submitter.log
    assert datadog.points == {
        (metric, ("job:mock-datasource",)): {stats["timestamp"]: stats[metric]}
        for metric in ("sample.stats", "processed.data")
    }
