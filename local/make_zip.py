"""Make one function's zip: its handler, the modules that it can import, their data and licences.

make_zip.py RUNTIME HANDLER.py NEW.zip PACKAGES: zipper.sh calls it. RUNTIME is the function's
Python (3.13), PACKAGES a folder of unpacked wheels.

Includes the modules that import statements lead to, also late ones (at the first POST or while
handling an error). This leaves out tests and command lines.
"""

import re
import shutil
import subprocess
import sys
import zipfile
from modulefinder import ModuleFinder
from pathlib import Path
from pkgutil import iter_modules
from tempfile import TemporaryDirectory

LICENCE = re.compile("licen[cs]e|notice|copying|authors", re.IGNORECASE)
NOT_DATA = {".py", ".pyi", ".typed"}  # py.typed is only for type checkers
OPTIONAL = ["urllib3.contrib"]  # needs other packages, or a browser

# Without the user's settings and site-packages; writes no files
ISOLATED = (sys.executable, "-B", "-I", "-S")

# Imports modules from nothing but a zip; Lambda provides boto3 and botocore, which are mocked.
PROVE = """
import importlib, sys
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

class Lambda:
    def find_spec(name, *_):
        mocked = name.partition(".")[0] in ("boto3", "botocore")
        return ModuleSpec(name, Lambda, is_package=True) if mocked else None
    create_module = lambda _: MagicMock()
    exec_module = print

sys.meta_path.append(Lambda)
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def find_files(handler: Path, packages: Path) -> dict[str, Path]:
    """Return path in the zip -> file, for all that the handler needs."""
    finder = ModuleFinder([str(packages), str(handler.parent)], excludes=OPTIONAL)
    finder.import_hook(handler.stem)
    files: dict[str, Path] = {}
    for module in finder.modules.values():
        file = Path(getattr(module, "__file__", None) or "")  # a built-in module has none
        if file.is_relative_to(packages):
            data = [each for each in file.parent.iterdir() if each.suffix not in NOT_DATA]
            files |= {str(each.relative_to(packages)): each for each in [file, *data]}
        elif file.parent == handler.parent:
            files[file.name] = file
    for file in packages.glob("*.dist-info/**/*"):
        if LICENCE.match(file.name):
            package = file.relative_to(packages).parts[0].partition("-")[0]
            files[f"licenses/{package}/{file.name}"] = file
    return {name: file for name, file in files.items() if file.is_file()}


def compile_modules(folder: str) -> None:
    """Add bytecode by this Python to a folder."""
    # -s: the bytecode doesn't contain the build's folder. Unchecked: a zip's source can't
    # change, and its time, which Python would otherwise check, depends on the unpacking.
    options = ["-q", "-s", folder, "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*ISOLATED, "-m", "compileall", *options, folder], check=True)


def write_zip(target: Path, folder: Path) -> int:
    """Zip a folder independently of when, where and by whom; return the number of files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    with zipfile.ZipFile(target, "w") as archive:
        for file in files:
            entry = zipfile.ZipInfo(str(file.relative_to(folder)))  # with the time 1980-01-01
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix
            entry.external_attr = 0o100644 << 16
            # The level is fixed; a Python with another zlib may still make other bytes.
            archive.writestr(entry, file.read_bytes(), compresslevel=9)
    return len(files)


def main(runtime: str, handler: str, target: str, packages: str) -> None:
    """Make the zip, prove that it can be imported, and print what it contains."""
    zipped, wheels = Path(target), Path(packages).resolve()
    names = [Path(handler).stem, *(package.name for package in iter_modules([str(wheels)]))]
    bytecode = f"not byte-compiled (no python{runtime} works here): cold starts take 0.14 s longer"
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, file in find_files(Path(handler).resolve(), wheels).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
        if runtime == "{}.{}".format(*sys.version_info):
            compile_modules(temporary)
            bytecode = f"byte-compiled for Python {runtime}"
        count = write_zip(zipped, folder)
    command = [*ISOLATED, "-c", PROVE, target, *names]
    run = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if run.returncode:
        zipped.unlink()
        sys.exit(f"{zipped.name} isn't kept, because it can't be imported: {run.stderr}")
    print(f"{zipped.name}: {zipped.stat().st_size:,} bytes, {count} files, {bytecode}")


if __name__ == "__main__":
    main(*sys.argv[1:])
