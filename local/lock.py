"""Pin the newest packages in requirements.txt and local/requirements.txt: make lock.

datadog itself stays at the version that requirements.txt names; for another, change it there first.
"""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# What ddg_metric_submit.zip holds beside our own files: datadog and its dependencies; Lambda brings
# boto3. One hash each, of the pure wheel, so that no machine takes another. Made by: make lock
"""
# With zipper.sh's words: for any machine and for the Python of the functions.
RESOLVE = """
pip install --dry-run --ignore-installed -qq --report - --target unused --only-binary=:all:
--platform any --implementation py --abi none --python-version {runtime} {datadog}
"""
COMPILE = """
uv pip compile --quiet --upgrade --universal --python-version 3.11 --only-binary :all:
--no-emit-index-url --custom-compile-command 'make lock'
--output-file local/requirements.txt local/requirements.in
"""


def run(command: str) -> str:
    """Run one of .venv's tools at the top of the repository; return what it prints."""
    arguments = [sys.executable, "-m", *shlex.split(command)]
    return subprocess.run(arguments, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Write both files."""
    ours = ROOT / "requirements.txt"
    [datadog] = re.findall(r"^datadog==\S+", ours.read_text(), re.MULTILINE)
    [runtime] = re.findall(r"^runtime=(\S+)", (ROOT / "zipper.sh").read_text(), re.MULTILINE)
    pins = [
        f"{wheel['metadata']['name']}=={wheel['metadata']['version']} \\\n"
        f"    --hash=sha256:{wheel['download_info']['archive_info']['hashes']['sha256']}\n"
        for wheel in json.loads(run(RESOLVE.format(runtime=runtime, datadog=datadog)))["install"]
    ]
    ours.write_text(HEAD + "".join(sorted(pins)))
    run(COMPILE)


if __name__ == "__main__":
    main()
