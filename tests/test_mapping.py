"""The submitter: mappings, prefixes and types, as JOBS, METRIC_PREFIX and METRICS set them."""

import base64
import gzip
import json
import subprocess
import sys
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
    """Submit one file of the job `tool`: bytes, or a value to write as JSON.

    modified: S3's Last-Modified; None for the current time, "" to send none.
    """
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    date = formatdate(STARTED, usegmt=True) if modified is None else modified

    def answer(_: Call) -> bytes:
        return response(body=content, **({"Last_Modified": date} if date else {}))

    submitter.set(JOBS=json.dumps({"tool": {"mapping": mapping}}), **env)
    return submitter.submit_from({KEY: answer})


# --- What a mapping makes ---

ROWS = {"in": 5, "out": 3, "by": {"a": 1}}
RUN = {"at": STARTED, "rows": ROWS, "ok": True, "who": "me", "n": None}
RUNS = [RUN | {"at": STARTED - n, "who": f"w{n}"} for n in range(3)]


@pytest.mark.parametrize(
    ("mapping", "document", "wanted"),
    [
        ("numbers(@)", RUN, {"at": STARTED, "rows.in": 5, "rows.out": 3, "rows.by.a": 1}),
        ("{timestamp: at, n: rows.in}", RUN, {"n": 5}),
        ("{timestamp: maybe(n), m: maybe(rows.in)}", RUN, {"m": 5}),
        ("rows", RUN, {"in": 5, "out": 3, "by.a": 1}),
        ("[:1] | [0].{n: rows.in}", RUNS, {"n": 5}),
        ("{n: sum([][])}", b"[1, 2]\n[3]\n", {"n": 6}),
        ("{n: a}", b'{"a": 1, "a": 2}', {"n": 2}),
        ("{n: a}", b'{"a": 1, "b": NaN, "c": 1e999, "d": ' + b"9" * 5000 + b"}", {"n": 1}),
        ("items(by)[*].{n: [1]} | [0]", {"by": {"x": 4, "y": 5}}, {"n": 4}),
        ("[*].{n: length(root())} | [0]", RUNS, {"n": 3}),
        ("sort_by(@, &at)[-1].{timestamp: at, n: rows.in}", RUNS, {"n": 5}),
    ],
)
def test_mapping_makes_objects_of_the_contract(
    submitter: Submitter, mapping: str, document: Any, wanted: dict[str, float]
) -> None:
    """The document is one JSON value, or the list of all lines; Last-Modified may date it."""
    outcome = submit(submitter, mapping, document)
    assert outcome.files == (1, 0, 0), outcome.log
    found = {metric: values for (metric, _), values in submitter.stored().items()}
    assert found == {metric: [value] for metric, value in wanted.items()}
    assert {at for points in submitter.datadog.points.values() for at in points} == {STARTED}


def test_mapped_objects_have_their_own_tags_and_times(submitter: Submitter) -> None:
    """Other jobs keep the strict contract."""
    mapping = "[*].{timestamp: at, tags: [join(':', ['who', who])], n: rows.in}"
    assert submit(submitter, mapping, RUNS).files == (1, 0, 0)
    assert submitter.datadog.points == {
        ("n", ("job:tool", f"who:w{n}")): {STARTED - n: 5.0} for n in range(3)
    }
    other = submitter.submit_from({"stats/other/a.json": json.dumps(RUN).encode()})
    assert other.files == (0, 1, 0)


REFUSED = {
    "null": ("{n: rows.in, m: rows.nope}", '"m" is null'),
    "null-tag": ("{tags: [nope], n: rows.in}", '"tags.0" is null'),
    "null-object": ("[{n: rows.in}, nope]", "object 2 of the mapping's result: it is null"),
    "nothing": ("nope.{a: b}", "finds nothing"),
    "deep-expression": ("{n: " * 142 + "at" + "}" * 142, "nested too deep"),
    "empty-list": ("rows.by.a[]", "finds nothing"),
    "no-object": ("rows.in", "makes a number from the file"),
    "string": ("{who: who}", '"who" is a string'),
    "tag-of-nothing": ("{tags: ['1', who], n: rows.in}", "nothing is left of a tag"),
    "time": ("{timestamp: who, n: rows.in}", '"timestamp" is a string'),
    "time-number": ("{timestamp: `1234567890123`, n: rows.in}", '"timestamp" is a number, not in'),
    "tags": ("{tags: who, n: rows.in}", '"tags" is a string: write a list'),
    "tag-number": ("{tags: [`1234567890`], n: rows.in}", 'tag 1 in "tags" is a number: write'),
    "old": ("{timestamp: `1234567890`, n: rows.in}", "the timestamp is "),
    "list-in-list": ("[[rows.in]]", "object 1 of the mapping's result: expected an object"),
    "no-metric": ("{timestamp: at}", "no metric"),
    "items-of-a-list": ("items([who])", "items() in the mapping expects object, got array"),
    "element": ("{n: sum([who])}", "sum() in the mapping expects array-number, got string"),
    "comparison": ("{n: who > `1`}", "don't go together"),
    "picked-nan": ("{n: to_number('nan')}", '"n" is not a number'),
    "shared": ("[@, @] | [*].{n: rows.in}", "two values for the same second and tags"),
}


@pytest.mark.parametrize(("mapping", "reason"), REFUSED.values(), ids=REFUSED)
def test_file_that_its_mapping_cannot_read_is_refused(
    submitter: Submitter, mapping: str, reason: str
) -> None:
    """The reason names paths but shows no value: such files may hold tokens."""
    submitter.keys.append(SECRET)
    outcome = submit(submitter, mapping, RUN | {"who": SECRET})
    assert outcome.files == (0, 1, 0), outcome.log
    assert reason in outcome.reasons[0]
    assert "1234567890" not in outcome.reasons[0]


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        ("a | [?nope(b)]", "there is no function nope()"),
        ("length(a, b)", "Expected 1 argument"),
        ("merge()", "Expected at least 1"),
        ("a..b", "Expecting"),
        ("(" * 2000, "nested too deep"),
        ("{n: not_null(maybe(a), b)}", "maybe()"),
        ("to_string(&a)", "&"),
        ("a[::0]", "step"),
    ],
)
def test_wrong_expression_is_retried_with_its_reason(
    submitter: Submitter, mapping: str, reason: str
) -> None:
    """The settings are at fault, so no file is refused, and other jobs go on."""
    submitter.set(JOBS=json.dumps({"tool": {"mapping": mapping}}))
    outcome = submitter.submit_from({KEY: b"{}", "stats/other/a.json": stats()})
    assert outcome.files == (1, 0, 1)
    assert "the job's mapping is wrong" in outcome.log[0]
    assert reason in outcome.log[0]


OBJECTS = [{"n": n, "s": "x" * 100, "o": {"p": n}} for n in range(500)]
LONG, TIMES = "x" * 300_000, [STARTED - n for n in range(110)]
COSTLY: list[tuple[str, object]] = [
    (" | ".join(["[@, @][]"] * 18), OBJECTS),
    ("{n: length([*].root()[*].to_string(root()))}", OBJECTS),
    ("{n: length([*])}", [0] * 70_000),
    ("{n: length(at[?root().s == root().s])}", [[0] * 1000]),
    ("{n: length(join(to_string(root()), [*].s))}", OBJECTS),
    ("{n: length(items(@))}", {f"k{n}": n for n in range(20_000)}),
    ("{n: length(at[*].numbers(root().s))}", {f"k{n}": n for n in range(1000)}),
    ("{n: length(keys(@))}", {f"k{n}": n for n in range(40_000)}),
    ("at[*].{timestamp: @, m: root().s}", {f"m{n}": n for n in range(600)}),
    ("at[*].{timestamp: @, n: `1`, tags: root().s}", {"a": LONG}),
    ("at[*].{timestamp: @, n: `1`, o: root().s}", {LONG: {"o": {}}}),
    ("{n: length(at[?root().s.a < root().s.b])}", {"a": LONG, "b": f"{LONG}x"}),
    ("{n: length(at[*].sort(root().s))}", [LONG, f"{LONG}x"]),
    ("{n: length(at[*].[root().s[]])}", [[]] * 6000),
]


@pytest.mark.parametrize(("mapping", "data"), COSTLY)
def test_evaluation_is_bounded(submitter: Submitter, mapping: str, data: object) -> None:
    """Without limits, such an expression would take minutes, or gigabytes."""
    import ddg_mapping

    is_shared = "at[" in mapping
    submitter.environment.setattr(ddg_mapping, "MAX_STEPS", ddg_mapping.MAX_STEPS // 40)
    document = {"at": TIMES, "s": data} if is_shared else data
    outcome = submit(submitter, mapping, document)
    assert outcome.files == (0, 1, 0)
    assert "steps" in outcome.reasons[0]


@pytest.mark.parametrize(
    "built",
    [
        "join('', n[*].root().s)",
        "join(s, n[*].to_string(@))",
        "to_string(n[*].root())",
        "n[*].root().l[]",
    ],
)
def test_values_count_before_they_are_built(submitter: Submitter, built: str) -> None:
    """One value, repeated often enough, would take a terabyte."""
    document = {"n": [0] * 60, "s": "x" * 4_000_000, "l": [0] * 150_000}
    with memory_under(50_000_000):
        outcome = submit(submitter, f"{{n: length({built})}}", document)
    assert outcome.files == (0, 1, 0)
    assert "steps" in outcome.reasons[0]


@pytest.mark.parametrize("mapping", ["numbers(@)", "@", "{n: @ == @}", " | ".join(["[@]"] * 240)])
def test_deep_document_is_refused(submitter: Submitter, mapping: str) -> None:
    """It is deeper than Python's stack, or than a metric's name can be."""
    deep = b'{"a": ' * 750 + b"1" + b"}" * 750
    assert submit(submitter, mapping, deep).files == (0, 1, 0)


@pytest.mark.parametrize(("series", "files"), [(1000, (1, 0, 0)), (1001, (0, 1, 0))])
def test_mapped_file_makes_a_thousand_series_at_most(
    submitter: Submitter, series: int, files: tuple[int, int, int]
) -> None:
    """Two points of one series count once."""
    document = {f"m{n}": n for n in range(series)}
    mapping = f"[numbers(@), merge(numbers(@), {{timestamp: `{STARTED - 9}`}})]"
    outcome = submit(submitter, mapping, document)
    assert outcome.files == files
    assert all("1,001 series" in reason for reason in outcome.reasons)


def test_limits_of_a_file_hold_for_a_mapped_one(submitter: Submitter) -> None:
    outcome = submit(submitter, "{n: length(@)}", b"[" + b"[],".join([b""] * 350_002) + b"1]")
    assert "350,000 objects" in outcome.reasons[0]


def test_file_without_a_timestamp_is_as_old_as_its_object(submitter: Submitter) -> None:
    """Without a Last-Modified, the file is retried."""
    old = formatdate(STARTED - 4000, usegmt=True)
    assert "old" in submit(submitter, "{n: n}", {"n": 1}, modified=old).reasons[0]
    for none in ("", "yesterday"):
        outcome = submit(submitter, "{n: n}", {"n": 1}, modified=none)
        assert outcome.files == (0, 0, 1)
        assert "Last-Modified" in outcome.log[0]


def test_slow_mapping_is_retried_when_time_is_short(submitter: Submitter) -> None:
    import ddg_mapping

    late = SimpleNamespace(monotonic=lambda: float("inf"))
    submitter.environment.setattr(ddg_mapping, "time", late)
    rows = [{"n": n} for n in range(500)]
    outcome = submit(submitter, "{n: length([*].root()[*].n)}", rows)
    assert outcome.files == (0, 0, 1)
    assert "no time was left to apply its mapping" in outcome.log[0]


def test_jmespath_is_imported_for_a_mapping_only() -> None:
    """Its import would slow down every cold start."""
    code = "import sys, ddg_metric_submit as m; m.load_mapping('', 0); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "ddg_stats_file" in done.stdout
    assert "ddg_mapping" not in done.stdout


# --- JOBS, METRIC_PREFIX and METRICS ---


def test_job_is_found_by_its_folder_as_written(submitter: Submitter) -> None:
    """The tag is normalised, but the folder isn't. JOBS is JSON, or the base64 of its gzip."""
    jobs = {"T+l ä": {"mapping": "{n: a}", "silent_after_hours": 3}, "unused": {}}
    for value in (json.dumps(jobs), encoded(jobs)):
        submitter.set(JOBS=value)
        outcome = submitter.submit_from({"stats/T+l ä/a.json": b'{"a": 1}'})
        assert "Last-Modified" in outcome.log[0]  # the mapping has been applied


def test_prefix_is_put_before_each_name(submitter: Submitter) -> None:
    """The pipeline's own metrics get none. The whole name must be good."""
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
def test_names_that_the_prefix_makes_equal_are_refused(submitter: Submitter, first: str) -> None:
    submitter.set(METRIC_PREFIX="ddg.")
    line = f'{{"timestamp": {STARTED - 9}, "x": 1}}\n{{"timestamp": {STARTED - 8}, "ddg.x": 1}}\n'
    content = line + f'{{"timestamp": {STARTED}, "ddg.x": 1, "x": {first}}}'
    outcome = submitter.submit_from({"stats/a/a": content.encode()})
    assert outcome.files == (0, 1, 0)
    assert "twice" in outcome.reasons[0]


def test_types_are_sent(submitter: Submitter) -> None:
    """METRICS has whole names; a metric that it doesn't name is a gauge."""
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
