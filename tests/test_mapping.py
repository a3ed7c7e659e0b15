"""The submitter: mappings, prefixes and types: what JOBS, METRICS and METRIC_PREFIX say."""

import base64
import gzip
import json
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.events import STARTED, stats
from tests.memory import memory_under
from tests.scripted_server import Call, response
from tests.submitter import Outcome, Submitter

ROOT = Path(__file__).parent.parent
KEY = "stats/tool/report.json"
SECRET = "hunter2-token"


def encoded(value: object) -> str:
    """Encode a setting as Terraform's base64gzip(jsonencode()) does."""
    return base64.b64encode(gzip.compress(json.dumps(value).encode())).decode()


def submit(
    submitter: Submitter, mapping: str, document: object, *, modified: str | None = None, **env: str
) -> Outcome:
    """Submit one file of the job `tool`; bytes are taken as they are, S3 dates it as it says."""
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    date = formatdate(STARTED, usegmt=True) if modified is None else modified

    def answer(_: Call) -> bytes:
        return response(body=content, **({"Last_Modified": date} if date else {}))

    submitter.set(JOBS=json.dumps({"tool": {"mapping": mapping}}), **env)
    return submitter.submit_from({KEY: answer})


# --- What a mapping makes ---

RUN = {
    "at": STARTED,
    "rows": {"in": 5, "out": 3, "by": {"a": 1}},
    "ok": True,
    "who": "me",
    "n": None,
}
RUNS = [RUN | {"at": STARTED - n, "who": f"w{n}"} for n in range(3)]


@pytest.mark.parametrize(
    ("mapping", "document", "wanted"),
    [
        ("numbers(@)", RUN, {"at": STARTED, "rows.in": 5, "rows.out": 3, "rows.by.a": 1}),
        ("{n: rows.in}", RUN, {"n": 5}),
        ("{timestamp: at, n: rows.in}", RUN, {"n": 5}),
        ("{n: maybe(n), m: maybe(rows.in)}", RUN, {"m": 5}),
        ("{timestamp: maybe(n), m: rows.in}", RUN, {"m": 5}),
        ("{maybe: maybe(nope), m: maybe(rows).out}", RUN | {"maybe": 1}, None),
        ("rows", RUN, {"in": 5, "out": 3, "by.a": 1}),
        ("[:1] | [0].{timestamp: at, n: rows.in}", RUNS, {"n": 5}),
        ("{n: length(@)}", b'{"a": 1}\n{"a": 2}\n', {"n": 2}),
        ("{n: a}", b'{"a": 1}\n', {"n": 1}),
        ("{n: sum([][])}", b"[1, 2]\n[3]\n", {"n": 6}),
        ("{n: a}", b'{"a": 1, "a": 2}', {"n": 2}),
        ("{n: a}", b'{"a": 1, "b": NaN, "c": 1e999, "d": ' + b"9" * 5000 + b"}", {"n": 1}),
        ("items(by)[*].{n: [1]} | [0]", {"by": {"x": 4, "y": 5}}, {"n": 4}),
        ("[*].{n: length(root())} | [0]", RUNS, {"n": 3}),
        ("sort_by(@, &at)[-1].{timestamp: at, n: rows.in}", RUNS, {"n": 5}),
    ],
)
def test_mapping_makes_the_contracts_objects(
    submitter: Submitter, mapping: str, document: Any, wanted: dict[str, float] | None
) -> None:
    """Of one JSON value, or of the list of lines; undated ones are of their Last-Modified."""
    outcome = submit(submitter, mapping, document)
    if wanted is None:
        assert outcome.files == (0, 0, 1)
        return
    assert outcome.files == (1, 0, 0), outcome.log
    found = {metric: values for (metric, _), values in submitter.stored().items()}
    assert found == {metric: [value] for metric, value in wanted.items()}
    assert {at for points in submitter.datadog.points.values() for at in points} == {STARTED}


def test_tags_times_and_jobs(submitter: Submitter) -> None:
    """Each object has its own; other jobs have the strict contract."""
    mapping = "[*].{timestamp: at, tags: [join(':', ['who', who])], n: rows.in}"
    assert submit(submitter, mapping, RUNS).files == (1, 0, 0)
    assert submitter.datadog.points == {
        ("n", ("job:tool", f"who:w{n}")): {STARTED - n: 5.0} for n in range(3)
    }
    other = submitter.submit_from({"stats/other/a.json": json.dumps(RUN).encode()})
    assert other.files == (0, 1, 0)


REFUSED = {
    "null": ("{n: rows.in, m: rows.nope}", '"m" is null'),
    "null-deep": ("{a: {b: rows.nope}, n: rows.in}", '"a.b" is null'),
    "null-as-found": ("@", '"n" is null'),
    "null-time": ("{timestamp: nope, n: rows.in}", '"timestamp" is null'),
    "null-tag": ("{tags: [nope], n: rows.in}", '"tags.0" is null'),
    "null-object": ("[{n: rows.in}, nope]", "object 2 of the mapping's result: it is null"),
    "nothing": ("nope", "finds nothing"),
    "object-of-nothing": ("nope.{a: b}", "finds nothing"),
    "number-in-list": ("[rows.in]", "object 1 of the mapping's result: "),
    "deep-expression": (" | ".join(["@"] * 450), "nested too deep"),
    "empty-list": ("rows.by.a[]", "finds nothing"),
    "no-object": ("rows.in", "makes a number from the file"),
    "string-result": ("who", "makes a string from the file"),
    "string": ("{who: who}", '"who" is a string'),
    "tag-of-nothing": ("{tags: ['1', who], n: rows.in}", "nothing is left of a tag"),
    "tag-object": ("{tags: {a: rows, who: who}, n: rows.in}", 'tag "a" in "tags" is an object'),
    "time": ("{timestamp: who, n: rows.in}", '"timestamp" is a string'),
    "old": ("{timestamp: `1234567890`, n: rows.in}", "the timestamp is "),
    "boolean": ("{ok: ok}", '"ok" is a boolean'),
    "list": ("{list: [rows.in]}", '"list" is a list'),
    "list-in-list": ("[[rows.in]]", "object 1 of the mapping's result: expected an object"),
    "no-metric": ("{timestamp: at}", "no metric"),
    "no-numbers": ("numbers({a: who})", "no metric"),
    "numbers-of-null": ("numbers(nope)", "numbers() in the mapping expects object, got null"),
    "items-of-a-list": ("items([who])", "items() in the mapping expects object, got array"),
    "type": ("{n: abs(who)}", "abs() in the mapping expects number, got string"),
    "element": ("{n: sum([who])}", "sum() in the mapping expects array-number, got string"),
    "python-type": ("{n: contains(who, `1`)}", "don't go together"),
    "comparison": ("{n: who > `1`}", "don't go together"),
    "picked-nan": ("{n: to_number('nan')}", '"n" is not a number'),
    "shared": ("[@, @] | [*].{n: rows.in}", "two values for the same second and tags"),
}


@pytest.mark.parametrize(("mapping", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_a_mapping_cannot_make_is_refused(
    submitter: Submitter, mapping: str, reason: str
) -> None:
    """The reason names paths and shows no value: such files hold tokens."""
    submitter.keys.append(SECRET)
    outcome = submit(submitter, mapping, RUN | {"who": SECRET})
    assert outcome.files == (0, 1, 0), outcome.log
    assert reason in outcome.reasons[0]
    assert "1234567890" not in outcome.reasons[0]


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        ("nope(@)", "there is no function nope()"),
        ("length(a, b)", "Expected 1 argument"),
        ("merge()", "Expected at least 1"),
        ("root(@)", "Expected 0 arguments"),
        ("a..b", "Expecting"),
        ("{a: b", "Incomplete"),
        ("'a", "Unclosed"),
        ("(" * 2000, "nested too deep"),
        ("{n: not_null(maybe(a), b)}", "maybe()"),
        ("[maybe(a)]", "maybe()"),
        ("to_string(&a)", "&"),
        ("a[::0]", "step"),
        ("a | [?nope(b)]", "nope()"),
    ],
)
def test_wrong_expression_is_retried_with_its_reason(
    submitter: Submitter, mapping: str, reason: str
) -> None:
    """The settings are at fault, so nothing is refused, and other jobs go on."""
    submitter.set(JOBS=json.dumps({"tool": {"mapping": mapping}}))
    outcome = submitter.submit_from({KEY: b"{}", "stats/other/a.json": stats()})
    assert outcome.files == (1, 0, 1)
    assert "the job's mapping is wrong" in outcome.log[0]
    assert reason in outcome.log[0]


@pytest.mark.parametrize(
    "mapping",
    [
        " | ".join(["[@, @][]"] * 18),
        "[*].root()[*].root()[*].numbers(@)",
        "{n: length([*].root()[*].to_string(root()))}",
        "{n: length([?root() == root()])}",
        "{n: length([*].root()[] | [*].root()[])}",
        "{n: length(join(to_string(root()), [*].s))}",
        "[*].root() | [*][*].items(@)",
        "{n: length(keys([0].w))}",
    ],
)
def test_evaluation_is_bounded(submitter: Submitter, mapping: str) -> None:
    """Whatever is left of the time: such an expression would take minutes, or gigabytes."""
    import ddg_mapping

    for limit in ("MAX_STEPS", "MAX_ELEMENTS", "MAX_LIST_ELEMENTS"):
        submitter.environment.setattr(ddg_mapping, limit, getattr(ddg_mapping, limit) // 10)
    started = time.process_time()
    document: list[Any] = [{"n": n, "s": "x" * 100, "o": {"p": n}} for n in range(500)]
    document[0]["w"] = {f"k{n}": n for n in range(30_000)}
    outcome = submit(submitter, mapping, document)
    assert outcome.files == (0, 1, 0)
    assert "steps" in outcome.reasons[0]
    assert time.process_time() - started < 5


def test_string_is_counted_before_it_is_joined(submitter: Submitter) -> None:
    """One string many times would take a terabyte."""
    mapping = "{n: length(join('', n[*].root().s))}"
    with memory_under(50_000_000):
        outcome = submit(submitter, mapping, {"n": [0] * 60, "s": "x" * 4_000_000})
    assert outcome.files == (0, 1, 0)


@pytest.mark.parametrize(
    ("mapping", "shared"),
    [
        ("at[*].{timestamp: @, m: root().s}", {f"m{n}": n for n in range(600)}),
        ("at[*].{timestamp: @, n: `1`, tags: root().s}", {"a": "x" * 100_000}),
        ("at[*].{timestamp: @, n: `1`, o: root().s}", {"x" * 100_000: {"o": {}}}),
        ("{n: length(at[?root().s.a < root().s.b])}", {"a": "x" * 100_000, "b": "x" * 100_050}),
        ("{n: length(at[*].sort(root().s))}", ["x" * 100_000, "x" * 100_050]),
        ("{n: length(at[*].[root().s[]])}", [[]] * 2000),
    ],
)
def test_what_is_looked_at_again_and_again_counts(
    submitter: Submitter, mapping: str, shared: object
) -> None:
    """A mapping may repeat what the file has once."""
    import ddg_mapping

    submitter.environment.setattr(ddg_mapping, "MAX_STEPS", 20_000)
    submitter.environment.setattr(ddg_mapping, "MAX_ELEMENTS", 90_000)
    document = {"at": [STARTED - n for n in range(110)], "s": shared}
    outcome = submit(submitter, mapping, document)
    assert outcome.files == (0, 1, 0)
    assert "steps" in outcome.reasons[0]


@pytest.mark.parametrize("mapping", ["numbers(@)", "@", "{n: @ == @}", " | ".join(["[@]"] * 240)])
def test_deep_document_is_refused(submitter: Submitter, mapping: str) -> None:
    """Deeper than Python's stack, when the mapping is done at least, or than a name can be."""
    deep = b'{"a": ' * 750 + b"1" + b"}" * 750
    assert submit(submitter, mapping, deep).files == (0, 1, 0)


@pytest.mark.parametrize(("series", "files"), [(1000, (1, 0, 0)), (1001, (0, 1, 0))])
def test_mapped_file_makes_a_thousand_series(
    submitter: Submitter, series: int, files: tuple[int, int, int]
) -> None:
    """Two points of a series are one; the reason has the number."""
    document = {f"m{n}": n for n in range(series)}
    mapping = f"[numbers(@), merge(numbers(@), {{timestamp: `{STARTED - 9}`}})]"
    outcome = submit(submitter, mapping, document)
    assert outcome.files == files
    assert all("1,001 series" in reason for reason in outcome.reasons)


def test_document_keeps_the_files_limits(submitter: Submitter) -> None:
    """They hold before a mapping is asked."""
    outcome = submit(submitter, "{n: length(@)}", b"[" + b"[],".join([b""] * 350_002) + b"1]")
    assert "350,000 objects" in outcome.reasons[0]


def test_undated_file_is_as_old_as_its_object(submitter: Submitter) -> None:
    """The maximum age holds for Last-Modified too; without one the file is retried."""
    old = formatdate(STARTED - 4000, usegmt=True)
    assert "old" in submit(submitter, "{n: n}", {"n": 1}, modified=old).reasons[0]
    for none in ("", "yesterday"):
        outcome = submit(submitter, "{n: n}", {"n": 1}, modified=none)
        assert outcome.files == (0, 0, 1)
        assert "Last-Modified" in outcome.log[0]


def test_slow_mapping_is_retried_when_time_is_short(submitter: Submitter) -> None:
    """The clock is looked at on the way."""
    import ddg_mapping

    late = SimpleNamespace(monotonic=lambda: float("inf"))
    submitter.environment.setattr(ddg_mapping, "time", late)
    rows = [{"n": n} for n in range(500)]
    outcome = submit(submitter, "{n: length([*].root()[*].n)}", rows)
    assert outcome.files == (0, 0, 1)
    assert "no time was left to apply its mapping" in outcome.log[0]


def test_jmespath_is_imported_for_a_mapping_only() -> None:
    """It is a part of the cold start that nobody else pays for."""
    code = "import sys, ddg_metric_submit as m; m.load_mapping('', 0); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "ddg_stats_file" in done.stdout
    assert "ddg_mapping" not in done.stdout


# --- JOBS as it is given ---


@pytest.mark.parametrize("job", ["tool", "Tool X", "t+o/ol"[:3], "täglich"])
def test_jobs_are_found_by_their_folders(submitter: Submitter, job: str) -> None:
    """As they are written, not as the tag is normalised; JSON or the base64 of its gzip."""
    jobs = {job: {"mapping": "{n: a}", "silent_after_hours": 3}, "unused": {}}
    for value in (json.dumps(jobs), encoded(jobs)):
        submitter.set(JOBS=value)
        outcome = submitter.submit_from({f"stats/{job}/a.json": b'{"a": 1}'})
        assert outcome.files == (0, 0, 1)  # undated: the mapping has been applied


# --- Prefix and types ---


def test_prefix_stands_before_each_name(submitter: Submitter) -> None:
    """Of mapped files and others, but not before the pipeline's own; the whole name counts."""
    submitter.set(METRIC_PREFIX="etl.")
    good: dict[str, Any] = {"200": 1, "a": {"b": 2}, "ddg.canary": 3, "n" * 196: 4}
    bad = {"n" * 197: 1}
    outcome = submitter.submit_from({"stats/a/a": stats(**good), "stats/a/b": stats(**bad)})
    assert outcome.files == (1, 1, 0)
    names = {metric for metric, _ in submitter.stored()}
    assert names == {"etl.200", "etl.a.b", "ddg.canary", "etl." + "n" * 196}
    assert submit(submitter, "{x: a}", {"a": 1}).files == (1, 0, 0)
    assert ("etl.x", ("job:tool",)) in submitter.stored()


@pytest.mark.parametrize("first", ["1", '2, "y": 3'], ids=["alone", "known"])
def test_prefix_hides_no_value(submitter: Submitter, first: str) -> None:
    """Two names that are one behind the prefix are told, in a file's later objects too."""
    submitter.set(METRIC_PREFIX="ddg.")
    line = f'{{"timestamp": {STARTED - 9}, "x": 1}}\n{{"timestamp": {STARTED - 8}, "ddg.x": 1}}\n'
    content = line + f'{{"timestamp": {STARTED}, "ddg.x": 1, "x": {first}}}'
    outcome = submitter.submit_from({"stats/a/a": content.encode()})
    assert outcome.files == (0, 1, 0)
    assert "twice" in outcome.reasons[0]


def test_types_are_sent(submitter: Submitter) -> None:
    """A count with its interval; by the whole name; whatever METRICS doesn't name is a gauge."""
    types = {"etl.c": {"type": "count", "interval": 60, "unit": "row"}, "etl.d": {"type": "count"}}
    types |= {"g": {"type": "count"}, "etl.h": {}}
    for value in (json.dumps(types), encoded(types)):
        submitter.set(METRICS=value, METRIC_PREFIX="etl.")
        assert submitter.submit_from({"stats/a": stats(c=1, d=2, g=3, h=4)}).files == (1, 0, 0)
        sent = submitter.datadog.requests[-1].series or []
        assert {each["metric"]: (each["type"], each.get("interval")) for each in sent} == {
            "etl.c": ("count", 60),
            "etl.d": ("count", None),
            "etl.g": ("gauge", None),
            "etl.h": ("gauge", None),
        }
