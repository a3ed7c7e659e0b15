"""ddg-ops where, jobs, tail, pause and resume."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.client import BaseClient

from ddg_ops import jobs, log
from tests.operated import StackOnMoto, make_stack, on_sleep, stats

stack = pytest.fixture(make_stack)
Patch = pytest.MonkeyPatch
KEY = "stats/a/1 é.json"


# --- where ---


def put_and_submit(stack: StackOnMoto) -> None:
    stack.put(KEY, stats(rows=1))
    stack.submit()


def put_bad(stack: StackOnMoto) -> None:
    stack.put(KEY, stats(rows="1"))
    stack.submit()


def upload_a_corrected_file(stack: StackOnMoto) -> None:
    put_bad(stack)
    put_and_submit(stack)


def give_up(stack: StackOnMoto) -> None:
    stack.put(KEY, stats(rows=1))
    stack.send_all(
        stack.dead_letter_url, [message["Body"] for message in stack.take(stack.main_url)]
    )


def give_up_an_older_version(stack: StackOnMoto) -> None:
    give_up(stack)
    for message in stack.queue(stack.dead_letter_url)._messages:
        message.sent_timestamp -= 9_000  # as for an earlier version
    stack.put(KEY, stats(rows=1))


def refuse_unlogged(stack: StackOnMoto) -> None:
    stack.put(KEY, b"{")
    stack.reject(KEY, "not JSON")


def retry_files_of_similar_names(stack: StackOnMoto) -> None:
    stack.put(KEY, stats(rows=1))
    stack.log(f"retried 2: no: s3://{stack.bucket}/{KEY}.gz, s3://{stack.bucket}/{KEY}, 2")


def retry(stack: StackOnMoto) -> None:
    stack.environment["DATADOG_HOST"] = "http://127.0.0.1:1"
    stack.put("stats/a/0.json", stats(rows=1))
    put_and_submit(stack)


def replay_in_vain(stack: StackOnMoto) -> None:
    put_bad(stack)
    stack.take(stack.rejected_url)


def do_not_log(stack: StackOnMoto) -> None:
    stack.set_environment(LOG_FILES="false")
    put_and_submit(stack)


def remove(stack: StackOnMoto) -> None:
    put_and_submit(stack)
    stack.aws["s3"].delete_object(Bucket=stack.bucket, Key=KEY)


@pytest.mark.parametrize(
    ("what", "key", "code", "state", "text"),
    [
        (put_and_submit, KEY, 0, "submitted", "at 20"),
        (upload_a_corrected_file, KEY, 0, "submitted", "at 20"),
        (put_bad, KEY, 1, "refused", '"rows" is the string "1"'),
        (replay_in_vain, KEY, 1, "refused", "is no longer in the rejected queue"),
        (retry, KEY, 1, "retried", "no answer from Datadog"),
        (give_up, KEY, 1, "dead", "find out why"),
        (give_up_an_older_version, KEY, 3, "not yet", "about 1 message in"),
        (refuse_unlogged, KEY, 1, "refused", ": not JSON"),
        (retry_files_of_similar_names, KEY, 3, "not yet", "about 1 message in"),
        (lambda s: s.put(KEY, b"{}"), KEY, 3, "not yet", "about 1 message in"),
        (lambda s: None, KEY, 3, "unknown", "no such object"),
        (remove, KEY, 0, "submitted", "doesn't exist now"),
        (do_not_log, KEY, 3, "unknown", "log_files = false"),
        (lambda s: s.put("stats/a/_SUCCESS", b""), "stats/a/_SUCCESS", 0, "marker", "1 version"),
        (lambda s: s.put("other/a", b""), "other/a", 1, "ignored", "isn't below the prefix stats/"),
    ],
)
def test_where(
    what: Callable[[StackOnMoto], object],
    key: str,
    code: int,
    state: str,
    text: str,
    stack: StackOnMoto,
) -> None:
    """It tells every outcome, and never receives from the stats queue."""
    what(stack)
    waiting = stack.bodies(stack.main_url)
    clients: Any = BaseClient
    call = clients._make_api_call

    def watch(client: Any, operation: str, parameters: Any) -> Any:
        assert operation != "ReceiveMessage" or parameters["QueueUrl"] != stack.main_url
        return call(client, operation, parameters)

    stack.patch.setattr(clients, "_make_api_call", watch)
    result = stack.run("where", key)
    assert (result.code, result.out.splitlines()[0]) == (
        code,
        f"{state:<11}s3://{stack.bucket}/{key}",
    )
    assert text in result.out
    assert stack.bodies(stack.main_url) == waiting
    document = stack.run("where --json", f"s3://{stack.bucket}/{key}").document
    assert [each["state"] for each in document["files"]] == [state]


def test_where_of_many(stack: StackOnMoto) -> None:
    """Another bucket, several versions, and keys that contain each other."""
    bucket = stack.connect("eventbridge")
    stack.aws["s3"].put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    for _ in range(2):
        stack.put("etl/stats/a/1.json", stats(rows=1), bucket)
    stack.put("stats/a/1.json.gz", stats(rows=1))
    stack.submit()
    stack.put("stats/a/1.json", stats(rows=1))
    result = stack.run(
        f"where stats/a/1.json.gz stats/a/1.json stats/a/1 s3://{bucket}/etl/stats/a/1.json"
    )
    assert result.code == 3
    states = re.findall(r"^(\S.*?)  +s3://", result.out, re.MULTILINE)
    assert states == ["submitted", "not yet", "unknown", "submitted"]
    assert "2 versions there, the newest: " in result.out
    assert "takes no files from elsewhere" in stack.run("where s3://elsewhere/a").err


# --- jobs ---


def test_jobs(stack: StackOnMoto) -> None:
    """A line per job: watched jobs show the time left, even without files. A silent job: 1."""
    hours = {"nightly": 26, "hourly": 2, "never": 3}
    stack.outputs["watched_jobs"] = {"value": hours}
    for job in ("nightly", "hourly", "My Job"):
        stack.put(f"stats/{job}/1.json", stats(rows="1"))
    stack.submit()
    stack.put("stats/nightly/2.json", stats(rows=1))
    for key in ("hourly/1", "nightly/2"):
        stack.age(f"stats/{key}.json", 3 * 3600)
    result = stack.run("jobs")
    assert result.code == 1
    lines = {line.split("  ")[0]: line for line in result.out.splitlines()}
    assert lines.keys() == {"nightly", "hourly", "My Job", "never"}
    assert re.search(
        r"last file \S+Z \(\d s ago\), 2 files, 1 refused, may be silent for 26 h", lines["nightly"]
    )
    assert re.search(r"\(3 h ago\), 1 file, 1 refused, silent for too long", lines["hourly"])
    assert lines["My Job"].endswith("1 file, 1 refused")
    assert lines["never"].endswith("no file, 0 refused, silent for too long")
    document = stack.run("jobs --json").document
    assert document["complete"] is True
    left = {each["job"]: each["seconds_left"] for each in document["jobs"]}
    assert left["My Job"] is None
    assert 93_500 < left["nightly"] <= 93_600


def test_jobs_lists_a_limited_number_of_keys(stack: StackOnMoto) -> None:
    """It stops listing a huge bucket, and says where."""
    stack.patch.setattr(jobs, "MAX_KEYS", 3)
    for number in range(4):
        stack.put(f"stats/job-{number}/1.json", stats(rows=1))
    result = stack.run("jobs")
    assert (result.code, result.out.count("last file")) == (3, 3)
    assert f"stopped at 3 keys, before s3://{stack.bucket}/stats/job-3/1.json" in result.out
    assert stack.run("jobs --json").document["complete"] is False


# --- pause and resume ---


def test_pause_and_resume(stack: StackOnMoto) -> None:
    """They switch mapping and schedule, only with --yes; `check` tells that it is paused."""
    stack.generate("2025-11-24T12:00:00.000+0000")

    def states() -> tuple[str, str]:
        mapping = stack.aws["lambda"].get_event_source_mapping(UUID=stack.mapping)
        rule = stack.aws["events"].describe_rule(Name=f"{stack.name}-mock-datasource")
        return mapping["State"], rule["State"]

    dry = stack.run("pause")
    assert (dry.code, states()) == (0, ("Enabled", "ENABLED"))
    for text in (
        "would be switched off (was enabled)",
        "nothing-submitted",
        "an hour old are refused",
    ):
        assert text in dry.out
    assert "the next `terraform apply`" in stack.run("pause --yes").out
    assert states() == ("Disabled", "DISABLED")
    checked = stack.run("check")
    assert f"FAILED  mapping       paused: the mapping from {stack.name}-stats" in checked.out
    assert (
        f"note    outcomes      no files in the last 60 minutes; {stack.name}-mock-da"
        in checked.out
    )
    assert "fix: ddg-ops resume --yes" in checked.out
    assert "(was disabled)" in stack.run("resume").out
    assert states() == ("Disabled", "DISABLED")
    assert stack.run("resume --yes --json").document["switched"] == "on"
    assert states() == ("Enabled", "ENABLED")


# --- tail ---


def summary(**values: int) -> dict[str, Any]:
    """Return a batch's summary."""
    return {"_aws": {}, "Submitted": 0, "Refused": 0, "Retried": 0, "Points": 0} | values


LINES = [  # of the log, and how `tail` shows them
    (
        summary(Submitted=8, Points=24, Requests=1, WireBytes=700) | {"DelayMilliseconds": [7, 90]},
        (
            f"{8:5} submitted{0:5} refused{0:5} retried{24:7} points{1:4} requests{700:8} B  "
            "fetch 0 ms  post 0 ms  delay 90 ms"
        ),
    ),
    ("refused s3://b/\x1b[2J: no", "refused s3://b/\ufffd[2J: no"),
    ({"level": "ERROR", "message": "no", "stackTrace": ["File x"]}, "no ['File x']"),
    ("2025 id Task timed out", "2025 id Task timed out"),
    (
        {"type": "platform.report", "record": {"status": "timeout"}},
        "the function ended with timeout",
    ),
    ({"type": "platform.report", "record": {"status": "success"}}, None),
    ({"_aws": {}, "FunctionName": "f", "Job": "nightly", "Submitted": 1, "Refused": 0}, None),
    ({"type": "platform.start"}, None),
    ([1], None),
    ('submitted ["s3://b/\\u00e9", "s3://b/2"]', ["submitted s3://b/é", "submitted s3://b/2"]),
]


def test_tail_of_lines(stack: StackOnMoto) -> None:
    """It prints batches, refusals, retries and errors, but not Lambda's own events.

    --files adds the submitted files.
    """
    stack.log(*(line if isinstance(line, str) else json.dumps(line) for line, _ in LINES))
    lines = stack.run("tail --no-follow").out.splitlines()
    assert [line[22:] for line in lines] == [shown for _, shown in LINES if isinstance(shown, str)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}Z  ", line[:22]) for line in lines)
    documents = stack.run("tail --no-follow --json").out.splitlines()
    assert len([json.loads(each)["at"] for each in documents]) == len(lines)
    lines = stack.run("tail --no-follow --files").out.splitlines()
    assert [line[22:] for line in lines][-2:] == LINES[-1][1]


def test_tail_follows(stack: StackOnMoto) -> None:
    """It prints each new or late line once, until Ctrl-C, but none before --since."""
    stack.log("old", at=time.time() - 7200)
    stack.log("first")
    steps: list[Callable[[], None]] = [
        lambda: stack.log("second"),
        lambda: stack.log("late", at=time.time() - 30),
        lambda: None,
    ]

    def step() -> None:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    on_sleep(stack.patch, log, step)
    result = stack.run("tail")
    assert (result.code, result.err.count("\n")) == (130, 1)
    assert [line[22:] for line in result.out.splitlines()] == ["first", "second", "late"]
    assert "old" in stack.run("tail --no-follow --since 3h").out
