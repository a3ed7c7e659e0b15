"""Mutation testing: change the functions' code a little, and see whether a test goes red.

Cosmic Ray makes the mutants; its own way to run them starts Python anew for each, which takes
hours. Here a test process is forked for each mutant from one that has imported what takes
long, in a copy of the project, and runs only tests that reach the mutated line: first those that
killed another mutant of its function, then quick ones. A mutant that runs into its time limit is
not killed, nor is one that no test reaches.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    "ddg_metric_submit",
    "ddg_outcomes",
    "ddg_s3_objects",
    "ddg_series_api",
    "ddg_settings",
    "ddg_stats_file",
    "ddg_mock_datasource",
)
TESTS = (  # those that run in one process; the others are about zips, Terraform and the local run
    "test_stats_file*.py",
    "test_schema.py",
    "test_series_api.py",
    "test_metric_submit.py",
    "test_submit_*.py",
    "test_datadog_package.py",
    "test_mock_datasource.py",
    "test_fuzz.py",
    "test_limits.py",
    "test_flow.py",
)
# Cosmic Ray has each binary operator and comparison replaced by every other; one of each is enough
OPERATORS = (
    "AddNot",
    "ExceptionReplacer",
    "NumberReplacer",
    "RemoveDecorator",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceUnaryOperator_USub_UAdd",
    "ZeroIterationForLoop",
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceBinaryOperator_Mul_Div",
    "ReplaceBinaryOperator_Div_Mul",
    "ReplaceBinaryOperator_FloorDiv_Mul",
    "ReplaceBinaryOperator_Mod_Mul",
    "ReplaceBinaryOperator_Pow_Mul",
    "ReplaceBinaryOperator_BitOr_BitAnd",
    "ReplaceBinaryOperator_BitAnd_BitOr",
    "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_Lt_GtE",
    "ReplaceComparisonOperator_LtE_Lt",
    "ReplaceComparisonOperator_LtE_Gt",
    "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_Gt_LtE",
    "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_GtE_Lt",
    "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_IsNot_Is",
)
REASONS = ROOT / "local/mutants.toml"  # why a survivor is as good as the original
NEEDED = 0.95  # of the mutants that aren't equivalent
BUDGET_SECONDS = 25.0  # of tests for a mutant: what these don't kill survives
LIMITS = "tests/test_limits.py"  # its tests look at constants and call nothing
QUICK_SECONDS = 0.02  # a test of less is always among them
KILLERS = 30  # tests that killed another mutant of the function, and are tried first
LIMIT_SECONDS = 20.0  # beyond what its tests take unmutated
PRELOADED = ("boto3", "moto.server", "datadog", "jsonschema", "requests")


@cache
def read_source(module: str) -> str:
    """Return a module as it was when it was first asked for."""
    return (ROOT / f"{module}.py").read_text(encoding="utf-8")


@cache
def parse_source(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(read_source(module))


class Mutant(NamedTuple):
    """One change of one line."""

    module: str
    line: int
    original: str
    mutated: str  # the line
    source: str  # all of the module, mutated

    @property
    def place(self) -> str:
        """Return the module and its function that the line is in."""
        names = [
            getattr(node, "name", "")
            for node in parse_source(self.module).body
            if node.lineno <= self.line <= (node.end_lineno or 0)
        ]
        return ".".join([self.module, *names])

    @property
    def change(self) -> str:
        """Return the change in one line."""
        return f"{self.module}: {self.original.strip()} -> {self.mutated.strip()}"


class Result(NamedTuple):
    """What became of a mutant: killed, survived, or timed out."""

    mutant: Mutant
    outcome: str
    killer: str = ""  # the test that was red, where one was


class Covered(NamedTuple):
    """What the unmutated tests do."""

    tests: Mapping[tuple[str, int], frozenset[str]]  # by module and line: those that reach it
    seconds: Mapping[str, float]  # that each takes

    def reaching(self, module: str, lines: Iterable[int]) -> set[str]:
        """Return the tests that reach one of a module's lines."""
        return set().union(*(self.tests.get((module, line), frozenset()) for line in lines))


def make_mutants(module: str) -> Iterator[Mutant]:
    """Yield a module's mutants; those that read the same to Python are one."""
    mutate_code = importlib.import_module("cosmic_ray.mutating").mutate_code
    get_operator = importlib.import_module("cosmic_ray.plugins").get_operator
    source = read_source(module)
    lines = source.splitlines()
    seen = {ast.dump(ast.parse(source))}
    for name in OPERATORS:
        operator, occurrence = get_operator(f"core/{name}")(), -1
        while True:
            occurrence += 1
            try:
                mutated = mutate_code(source, operator, occurrence)
            except AttributeError:  # Cosmic Ray's ExceptionReplacer knows no dotted names
                continue
            if mutated is None:
                break
            with contextlib.suppress(SyntaxError):
                tree = ast.dump(ast.parse(mutated))
                if tree not in seen:
                    seen.add(tree)
                    yield locate(module, lines, mutated)


def locate(module: str, lines: Sequence[str], mutated: str) -> Mutant:
    """Return a mutant with the line that differs."""
    changed = mutated.splitlines()
    pairs = enumerate(zip(lines, changed, strict=False), 1)
    line = next((number for number, (old, new) in pairs if old != new), len(lines))
    return Mutant(module, line, lines[line - 1], changed[min(line, len(changed)) - 1], mutated)


def make_original(module: str) -> Mutant:
    """Return a module as it is; all tests run on it."""
    return Mutant(module, 1, "", "", read_source(module))


def copy_project(folder: Path) -> None:
    """Copy what the tests need."""
    for pattern in ("ddg_*.py", "*.toml", "*.json", "*.txt", "*.tf", "*.md", "Makefile"):
        for file in ROOT.glob(pattern):
            shutil.copy(file, folder)
    for name in ("tests", "local", "docs"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)


PLUGIN = """
import json, pytest

seconds, failed = {}, set()

def pytest_runtest_logreport(report):
    seconds[report.nodeid] = seconds.get(report.nodeid, 0.0) + report.duration
    if report.failed:
        failed.add(report.nodeid)

def pytest_sessionfinish(session):
    with open("seconds.json", "w") as file:
        json.dump({test: took for test, took in seconds.items() if test not in failed}, file)
"""


def cover(folder: Path, jobs: int) -> Covered:
    """Run the tests once, and note which lines each reaches and how long it takes."""
    (folder / "mutants_plugin.py").write_text(PLUGIN)
    command = [sys.executable, "-m", "pytest", f"-n{jobs}", "-q", "-p", "mutants_plugin"]
    command += ["--cov", "--cov-config=mutants.ini", "--cov-context=test", "--cov-report="]
    command += test_files(folder)
    (folder / "mutants.ini").write_text("[run]\ninclude = ddg_*.py\n")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    # A test that is red without a mutant, as by too much load, is left out: it kills nothing.
    subprocess.run(command, cwd=folder, check=False, env=environment)
    seconds = json.loads((folder / "seconds.json").read_text())
    coverage = importlib.import_module("coverage")
    data = coverage.CoverageData(str(folder / ".coverage"))
    data.read()
    tests: dict[tuple[str, int], frozenset[str]] = {}
    for module in MODULES:
        for line, contexts in data.contexts_by_lineno(str(folder / f"{module}.py")).items():
            reached = {context.rpartition("|")[0] for context in contexts if context}
            tests[module, line] = frozenset(reached & seconds.keys())
    return Covered(tests, seconds)


def test_files(folder: Path) -> list[str]:
    """Return the files of TESTS."""
    found = [file for pattern in TESTS for file in (folder / "tests").glob(pattern)]
    return [str(file.relative_to(folder)) for file in sorted(found)]


def choose_tests(mutant: Mutant, covered: Covered) -> list[str]:
    """Return tests that reach a line, within the budget; of one run at import, what it names."""
    reached = covered.reaching(mutant.module, statement_lines(mutant))
    if named := re.match(r"(\w+) = ", mutant.original):  # and so not within a function
        reached.clear()
        for module in MODULES:
            lines = enumerate(read_source(module).splitlines(), 1)
            uses = [n for n, line in lines if re.search(rf"\b{named[1]}\b", line)]
            reached |= covered.reaching(module, uses)
        reached |= {test for test in covered.seconds if test.startswith(LIMITS)}
    # The quickest; of the others one case of each function, then another: those kill the same.
    cases: Counter[str] = Counter()
    ranked = []
    for test in sorted(reached or covered.seconds, key=lambda test: covered.seconds[test]):
        function = test.partition("[")[0]
        cases[function] += covered.seconds[test] > QUICK_SECONDS
        ranked.append((cases[function], covered.seconds[test], test))
    chosen: list[str] = []
    left = BUDGET_SECONDS
    for _, seconds, test in sorted(ranked):
        if seconds <= left or not chosen:
            left -= seconds
            chosen.append(test)
    return chosen


def statement_lines(mutant: Mutant) -> range:
    """Return the lines from a mutant's to the last one of the innermost statement around it."""
    around = [
        node
        for node in ast.walk(parse_source(mutant.module))
        if isinstance(node, ast.stmt) and node.lineno <= mutant.line <= (node.end_lineno or 0)
    ]
    inner = max(around, key=lambda node: node.lineno, default=None)
    return range(mutant.line, 1 + (inner.end_lineno or 0 if inner else mutant.line))


class Worker:
    """A copy of the project, and a process in it that forks one for each mutant."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, *PRELOADED],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, mutant: Mutant, tests: Sequence[str], limit: float) -> Result:
        """Return what becomes of a mutant."""
        file = self.folder / f"{mutant.module}.py"
        original = file.read_text(encoding="utf-8")
        file.write_text(mutant.source, encoding="utf-8")
        try:
            assert self.process.stdin is not None  # noqa: S101  # it is a pipe
            assert self.process.stdout is not None  # noqa: S101  # likewise
            self.process.stdin.write(json.dumps([limit, *tests]) + "\n")
            self.process.stdin.flush()
            outcome, _, killer = self.process.stdout.readline().strip("\n").partition(": ")
            return Result(mutant, outcome, killer)
        finally:
            file.write_text(original, encoding="utf-8")

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait()


# No bytecode: two mutants of the same size within a second would share it.
SERVE = """
import importlib, json, os, signal, sys, time
sys.dont_write_bytecode = True
sys.path.insert(0, os.getcwd())
for name in sys.argv[1:]:
    importlib.import_module(name)
import pytest

class Chosen:
    def __init__(self, tests, killer):
        self.order = {test: place for place, test in enumerate(tests)}
        self.killer = killer

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if item.nodeid in self.order]
        items.sort(key=lambda item: self.order[item.nodeid])

    def pytest_runtest_logreport(self, report):
        if report.failed:
            os.write(self.killer, report.nodeid.encode())

for line in sys.stdin:
    limit, *tests = json.loads(line)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.setsid()
        os.close(read)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        options = ["-n0", "-x", "-q", "-p", "no:cacheprovider", "--no-cov", "--no-header"]
        try:
            files = sorted({test.partition("::")[0] for test in tests})
            code = pytest.main([*options, *files], plugins=[Chosen(tests, write)])
        except BaseException as error:
            print(repr(error))
            code = 1
        sys.stdout.flush()
        os._exit(int(code))
    os.close(write)
    end, done, status = time.monotonic() + limit, 0, 0
    while not done and time.monotonic() < end:
        time.sleep(0.01)
        done, status = os.waitpid(child, os.WNOHANG)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if not done:
        os.waitpid(child, 0)
    outcome = "survived" if done and status == 0 else "killed" if done else "timed out"
    os.set_blocking(read, False)
    try:
        killer = os.read(read, 2000).decode()
    except BlockingIOError:  # a process that it started is still there
        killer = ""
    os.close(read)
    print(f"{outcome}: {killer}", flush=True)
"""


def run_mutants(
    mutants: Sequence[Mutant], covered: Covered, folders: Sequence[Path]
) -> Iterator[Result]:
    """Run mutants side by side, and yield what becomes of each as it ends."""
    workers: SimpleQueue[Worker] = SimpleQueue()
    for folder in folders:
        workers.put(Worker(folder))

    killers: dict[str, list[str]] = defaultdict(list)  # of a function's mutants, the last one first

    def run(mutant: Mutant) -> Result:
        tests = choose_tests(mutant, covered)
        known = [test for test in killers[mutant.place] if test in tests][:KILLERS]
        others = [test for test in tests if test not in known]
        result = Result(mutant, "survived")
        worker = workers.get()
        try:
            for some in filter(None, (known, others)):
                limit = LIMIT_SECONDS + 3 * sum(covered.seconds.get(test, 0.0) for test in some)
                result = worker.run(mutant, some, limit)
                if result.outcome != "survived":
                    break
        finally:
            workers.put(worker)
        if result.killer in tests:
            last = [test for test in killers[mutant.place] if test != result.killer]
            killers[mutant.place] = [result.killer, *last]
        return result

    with ThreadPoolExecutor(len(folders)) as threads:
        original = make_original(mutants[0].module)
        if any(result.outcome != "survived" for result in threads.map(run, [original] * 2)):
            raise SystemExit("the tests are red without a mutant")
        yield from threads.map(run, mutants)
    while not workers.empty():
        workers.get().close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all mutants; returns 1 if too few are killed, or a survivor has no reason."""
    parser = argparse.ArgumentParser("python -m local.mutants", description=main.__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="side by side")
    parser.add_argument("--module", choices=MODULES, action="append", help="this one alone")
    parser.add_argument("--every", type=int, default=1, help="only every so manieth mutant")
    options = parser.parse_args(arguments)
    reasons = tomllib.loads(REASONS.read_text(encoding="utf-8")) if REASONS.exists() else {}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(job)) for job in range(options.jobs)]
        for folder in folders:
            folder.mkdir()
            copy_project(folder)
        covered = cover(folders[0], options.jobs)
        print(f"{time.monotonic() - started:5.0f} s  {len(covered.seconds)} tests", flush=True)
        modules = options.module or MODULES
        mutants = [mutant for module in modules for mutant in make_mutants(module)]
        mutants.sort(key=lambda mutant: (mutant.module, mutant.line))  # neighbours' killers first
        mutants = mutants[:: options.every]
        print(f"{time.monotonic() - started:5.0f} s  {len(mutants)} mutants", flush=True)
        results: list[Result] = []
        for result in run_mutants(mutants, covered, folders):
            results.append(result)
            if result.outcome != "killed":
                print(f"{result.outcome}: {result.mutant.change}", flush=True)
            if not len(results) % 50:
                print(f"{time.monotonic() - started:5.0f} s  {len(results)} run", flush=True)
    return report(results, reasons, time.monotonic() - started)


def report(results: Sequence[Result], reasons: Mapping[str, str], seconds: float) -> int:
    """Print what became of the mutants; returns 1 if that isn't good enough."""
    left = [result for result in results if result.outcome != "killed"]
    unexplained = [result for result in left if result.mutant.change not in reasons]
    for result in left:
        why = reasons.get(result.mutant.change, "no reason yet")
        print(f"{result.outcome}: {result.mutant.change}\n    {why}")
    counts = Counter(result.outcome for result in results)
    share = counts["killed"] / len(results)
    print(f"{len(results)} mutants in {seconds:.0f} s: {dict(counts)}, {share:.1%} killed")
    print(f"{len(unexplained)} of those left have no reason in {REASONS.name}")
    return 0 if share >= NEEDED and not unexplained else 1


if __name__ == "__main__":
    sys.exit(main())
