"""Fuzzing: what atheris finds goes through the checks of local/invariants.py.

python -m local.fuzz --seconds 60    each target in turn, in a process of its own
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

TARGETS = ("file", "body", "answer")
INSTRUMENTED = ["ddg_metric_submit", "ddg_series_api", "ddg_stats_file"]
MAX_MEGABYTES = 512  # that the process may take; atheris itself has a part of it


def fuzz(target: str, seconds: int) -> None:
    """Fuzz one target in this process, which ends with it."""
    atheris = importlib.import_module("atheris")  # which `make fuzz` alone installs
    with atheris.instrument_imports(include=INSTRUMENTED):
        invariants = importlib.import_module("local.invariants")
    answers = invariants.Answers()
    checks = {
        "file": invariants.check_file,
        "body": invariants.check_body_bytes,
        "answer": answers.check,
    }
    options = [f"-max_total_time={seconds}", f"-rss_limit_mb={MAX_MEGABYTES}", "-timeout=5"]
    with tempfile.TemporaryDirectory() as corpus, answers.server:
        for number, seed in enumerate(invariants.TARGETS[target]):
            (Path(corpus) / str(number)).write_bytes(seed)
        options.append(f"-artifact_prefix={corpus}/")  # it prints the input too
        atheris.Setup([sys.argv[0], *options, corpus], checks[target])
        atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz each target for some seconds; returns 1 if anything that must hold doesn't."""
    parser = argparse.ArgumentParser("python -m local.fuzz", description=main.__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="a target; default: %(default)s")
    parser.add_argument("--target", choices=TARGETS, help="this one alone, in this process")
    options = parser.parse_args(arguments)
    if options.target:
        fuzz(options.target, options.seconds)
    red = 0
    for target in TARGETS:
        print(f"{target}: {options.seconds} s", flush=True)
        command = [sys.executable, "-m", "local.fuzz", "--target", target]
        done = subprocess.run([*command, "--seconds", str(options.seconds)], check=False)
        red |= done.returncode != 0
    return int(red)


if __name__ == "__main__":
    sys.exit(main())
