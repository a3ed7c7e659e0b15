"""Make one function's zip: its handler, the modules that it can import, their data and licences.

make_zip.py RUNTIME HANDLER.py NEW.zip [PACKAGES]: zipper.sh calls it. RUNTIME is the function's
Python (3.13), PACKAGES a folder of unpacked wheels.

A rule decides what is included, so there is no list to maintain: a module that can be imported, and
that an import statement in the handler or a package leads to, even a late one (at the first POST or
while handling an error). This leaves out tests, command lines, and modules for other platforms or
for packages that aren't installed.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from modulefinder import ModuleFinder
from pathlib import Path
from pkgutil import iter_modules

LICENCE = re.compile("licen[cs]e|notice|copying|authors", re.IGNORECASE)
DEFLATE_LEVEL = 9  # zlib's highest
NOT_DATA = {".py", ".pyi", ".typed"}  # py.typed is only for type checkers

# Without the user's settings and site-packages; writes no files
ISOLATED = (sys.executable, "-B", "-I", "-S")

# Prints the names that can be imported. A missing module outside of the packages (PySocks,
# pyOpenSSL, a browser's JavaScript) is optional, so the module that needs it can be left out.
IMPORT = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
ours = {name.partition(".")[0] for name in sys.argv[2:]}
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
        print(name)
    except ModuleNotFoundError as error:
        if (error.name or name).partition(".")[0] in ours:
            raise
"""

# Imports modules from nothing but a zip; Lambda provides boto3 and botocore, which are mocked.
PROVE = """
import importlib, sys
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

class Lambda:
    def find_spec(name, *_):
        ours = name.partition(".")[0] not in ("boto3", "botocore")
        return None if ours else ModuleSpec(name, Lambda, is_package=True)
    create_module = lambda _: MagicMock()
    exec_module = print

sys.meta_path.append(Lambda)
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def find_modules(handler: Path, packages: Path | None) -> dict[str, bytes]:
    """Return path in the zip -> source of everything that the handler and the packages import."""
    finder = ModuleFinder(path=[str(folder) for folder in (packages, handler.parent) if folder])
    finder.import_hook(handler.stem)
    if packages:  # by name: datadog calls __import__("requests"), which isn't a statement
        for package in iter_modules([str(packages)]):
            finder.import_hook(package.name)
    found = {
        name: Path(getattr(module, "__file__", None) or "")  # a built-in module has none
        for name, module in finder.modules.items()
    }
    modules = {
        str(file.relative_to(handler.parent)): file.read_bytes()
        for file in found.values()
        if file.parent == handler.parent
    }
    if packages:
        theirs = {name for name, file in found.items() if file.is_relative_to(packages)}
        for name in importable(packages, theirs):
            modules[str(found[name].relative_to(packages))] = found[name].read_bytes()
    return modules


def importable(packages: Path, names: Iterable[str]) -> list[str]:
    """Return those of the packages' modules that can be imported with nothing else installed."""
    command = [*ISOLATED, "-c", IMPORT, str(packages), *sorted(names)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def find_data(packages: Path, modules: Iterable[str]) -> dict[str, bytes]:
    """Return path in the zip -> content of the other files in the packages' folders."""
    folders = {packages / Path(name).parent for name in modules} - {packages}
    return {
        str(file.relative_to(packages)): file.read_bytes()
        for folder in folders
        for file in folder.iterdir()
        if file.is_file() and file.suffix not in NOT_DATA
    }


def find_licences(packages: Path) -> dict[str, bytes]:
    """Return licenses/<package>/<file> -> content; a package without a licence is an error."""
    licences: dict[str, bytes] = {}
    for metadata in packages.glob("*.dist-info"):
        package = metadata.name.partition("-")[0]
        files = [file for file in metadata.rglob("*") if file.is_file()]
        found = [file for file in files if LICENCE.match(file.name)]
        if not found:
            sys.exit(
                f"{metadata.name} has no file that is named as a licence (LICENCE in {__file__})"
            )
        for file in found:
            path = str(file.relative_to(metadata)).removeprefix("licenses/")
            licences[f"licenses/{package}/{path}"] = file.read_bytes()
    return licences


def compile_modules(modules: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return path in the zip -> bytecode of each module, by this Python."""
    with tempfile.TemporaryDirectory() as folder:
        for name, source in modules.items():
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(source)
        # -s: the bytecode doesn't contain the build's folder. Unchecked: a zip's source can't
        # change, and its time, which Python would otherwise check, depends on the unpacking.
        options = ["-q", "-s", folder, "--invalidation-mode", "unchecked-hash"]
        subprocess.run([*ISOLATED, "-m", "compileall", *options, folder], check=True)
        bytecode = Path(folder).rglob("*.pyc")
        return {str(file.relative_to(folder)): file.read_bytes() for file in bytecode}


def write_zip(target: Path, files: Mapping[str, bytes]) -> None:
    """Write the files so that the zip doesn't depend on when, where and by whom it is made."""
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name)  # with the time 1980-01-01
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix
            entry.external_attr = 0o100644 << 16
            # The level is fixed; a Python with another zlib may still make other bytes.
            archive.writestr(entry, content, compresslevel=DEFLATE_LEVEL)


def prove(zipped: Path, names: Iterable[str]) -> None:
    """Exit unless a Python that sees nothing but the zip can import these modules."""
    command = [*ISOLATED, "-c", PROVE, str(zipped), *names]
    run = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if run.returncode:
        zipped.unlink()
        sys.exit(f"{zipped.name} isn't kept, because it can't be imported: {run.stderr}")


def main(runtime: str, handler: str, target: str, folder: str | None = None) -> None:
    """Make the zip and print what it contains."""
    packages = Path(folder).resolve() if folder else None
    modules = find_modules(Path(handler).resolve(), packages)
    files = dict(modules)
    if packages:
        files |= find_data(packages, modules) | find_licences(packages)
    if runtime == "{}.{}".format(*sys.version_info):
        files |= compile_modules(modules)
        bytecode = f"byte-compiled for Python {runtime}"
    else:
        bytecode = (
            f"not byte-compiled (no python{runtime} works here): cold starts take 0.14 s longer"
        )
    zipped = Path(target)
    write_zip(zipped, files)
    theirs = iter_modules([str(packages)]) if packages else ()
    prove(zipped, [Path(handler).stem, *(package.name for package in theirs)])
    print(f"{zipped.name}: {zipped.stat().st_size:,} bytes, {len(files)} files, {bytecode}")


if __name__ == "__main__":
    main(*sys.argv[1:])
