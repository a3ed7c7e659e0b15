"""The submitter: events of S3, on their own, in an SNS envelope, or from EventBridge."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.events import BUCKET, s3_record, sqs_record, stats
from tests.scripted_server import Objects, bucket_of, s3_error
from tests.submitter import Outcome, Submitter, aws

NAMES = ["plain.json", "a b  c.json", "a+b.json", "100%.json", "100%25%2B%2F.json", "%2B %%%"]
NAMES += ["+%20+", "day=1/at:12.json", "ünï-日本-😀-e\u0301.json", "a&b=c?d#e;f'\"<>.json"]
NAMES += ["/double.json", "x" * 1014, "line\nend\t\x1b[31m.json"]  # moto can't store the last one
KEYS = [f"stats/job/{name}" for name in NAMES]


def record(key: str, bucket: str = BUCKET, *, kind: Any = "ObjectCreated:Put", **more: Any) -> Any:
    """Return an S3 record, with more attributes of its object."""
    made = s3_record(key, bucket)
    made["s3"]["object"] |= more
    return made | {"eventName": kind}


def by_s3(key: str, bucket: str = BUCKET, **more: Any) -> str:
    return json.dumps({"Records": [record(key, bucket, **more)]})


def by_eventbridge(
    key: Any, bucket: str = BUCKET, *, kind: Any = "Object Created", **more: Any
) -> str:
    """Return an EventBridge event in short, with the key as it is.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
    """
    detail = {"bucket": {"name": bucket}, "object": {"key": key, "size": 46} | more}
    return json.dumps({"source": "aws.s3", "detail-type": kind, "detail": detail})


def in_envelope(body: str) -> str:
    """Return a body in an SNS envelope."""
    topic = "arn:aws:sns:us-east-1:123456789012:uploads"
    return json.dumps({"Type": "Notification", "TopicArn": topic, "Message": body})


def submit(submitter: Submitter, objects: Objects, *bodies: str) -> Outcome:
    return submitter.submit_from(objects, *(sqs_record(body=body) for body in bodies))


# --- Keys ---


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(by_s3, id="s3"),  # and SNS with raw delivery
        pytest.param(lambda key: in_envelope(by_s3(key)), id="sns"),
        pytest.param(by_eventbridge, id="eventbridge"),
        pytest.param(lambda key: by_eventbridge(quote(key, safe="")), id="encoded"),  # LocalStack
    ],
)
def test_key_is_read_from_every_messenger(submitter: Submitter, body: Callable[[str], str]) -> None:
    files = {key: stats(age=n, m=n) for n, key in enumerate(KEYS)}
    assert submit(submitter, files, *map(body, KEYS)).files == (len(KEYS), 0, 0)
    assert submitter.stored() == {("m", ("job:job",)): [*range(len(KEYS) - 1, -1, -1)]}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (by_s3("stats/a%2Bb c"), "raw"),  # elastic/beats 33998, 38012
        (by_eventbridge("stats/a%2Bb c"), "raw"),
        (by_eventbridge("stats/a+b c"), "decoded"),
        (by_eventbridge("stats/a%2Bb%20c"), "decoded"),
    ],
    ids=["s3", "eventbridge", "plus", "encoded"],
)
def test_key_of_eventbridge_is_decoded_if_no_object_has_it(
    submitter: Submitter, body: str, found: str
) -> None:
    """A plus is no space."""
    names = {"stats/a%2Bb c": "raw", "stats/a+b c": "decoded", "stats/a b c": "twice"}
    files = {key: stats(m=1, tags=[name]) for key, name in names.items()}
    assert submit(submitter, files, body).files == (1, 0, 0)
    assert list(submitter.stored()) == [("m", (found,))]


@pytest.mark.parametrize(
    ("key", "requested"), [("a%20b", ["a%20b", "a b"]), ("a+b", ["a+b"]), ("100%", ["100%"])]
)
def test_object_is_gone_if_neither_key_exists(
    submitter: Submitter, key: str, requested: list[str]
) -> None:
    """Reason and log show the key of the event."""
    with submitter.reading_from(bucket_of({})) as s3:
        outcome = submitter.submit(sqs_record(body=by_eventbridge(f"stats/{key}")))
    assert s3.calls == [f"GET /{BUCKET}/stats/{key}" for key in requested]
    assert outcome.reasons == ["the object is gone. Keep files until they are submitted."]
    assert outcome.rejected[0].attributes["key"] == f"stats/{key}"
    assert f"s3://{BUCKET}/stats/{key}: " in outcome.log[0]


def test_reason_has_the_key_that_exists(submitter: Submitter) -> None:
    """The operator needs it to fetch the file. A large file is requested twice."""
    keys = ["stats/a b", "stats/c d"]
    files = dict(zip(keys, (b"no", b"no".rjust(300_000)), strict=True))
    outcome = submit(submitter, files, *(by_eventbridge(quote(key)) for key in keys))
    assert sorted(message.attributes["key"] for message in outcome.rejected) == keys
    assert [f"s3://{BUCKET}/{key}: " in outcome.log[n] for n, key in enumerate(keys)] == [True] * 2


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        ("403 F", "AccessDenied", f"AccessDenied: User may not kms:Decrypt s3:::{BUCKET}/..."),
        ("404 N", "NoSuchBucket", "NoSuchBucket"),
    ],
)
def test_key_is_decoded_for_a_missing_object_only(
    submitter: Submitter, status: str, code: str, reason: str
) -> None:
    """S3's message tells why it denies access; without the key, files share a line."""
    words = f"User may not kms:Decrypt s3:::{BUCKET}/stats/a%20b"
    with submitter.reading_from(lambda call: s3_error(status, code, words)) as s3:
        outcome = submitter.submit(sqs_record(body=by_eventbridge("stats/a%20b")))
    assert (len(s3.calls), outcome.files) == (1, (0, 0, 1))
    assert outcome.log[0].startswith(f"retried 1: S3 answered {reason}. Look at the role's policy")


# --- Versions ---


@pytest.mark.parametrize(("body", "name"), [(by_s3, "versionId"), (by_eventbridge, "version-id")])
def test_each_version_of_an_overwritten_key_is_read(
    submitter: Submitter, body: Callable[..., str], name: str
) -> None:
    """In a versioned bucket, each event names a version."""
    s3, bucket = aws("s3", submitter.moto), f"versions-{name.lower()}"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    contents = [stats(first=1), b"bad", stats(last=1)]
    put = [s3.put_object(Bucket=bucket, Key="stats/a b", Body=content) for content in contents]
    bodies = [body("stats/a b", bucket, **{name: each["VersionId"]}) for each in put]
    outcome = submitter.submit(*(sqs_record(body=body) for body in bodies))
    assert outcome.files == (2, 1, 0)
    assert {metric for metric, _ in submitter.stored()} == {"first", "last"}
    assert [message.body for message in outcome.rejected] == [bodies[1]]
    submitter.datadog.points.clear()
    none = [body("stats/a b", bucket, **{name: version}) for version in (None, "", "null")]
    assert submitter.submit(*(sqs_record(body=body) for body in none)).files == (3, 0, 0)
    assert {metric for metric, _ in submitter.stored()} == {"last"}  # the newest


# --- Objects that aren't new stats files ---


def test_new_objects_are_read(submitter: Submitter) -> None:
    """Without a kind of event, an object counts as new."""
    kinds = ("ObjectCreated:New", "", None)
    bodies = [by_s3("stats/a", kind=kind) for kind in kinds]
    bodies += [by_eventbridge("stats/a", kind=kind) for kind in ("", None)]
    assert submit(submitter, {"stats/a": stats()}, *bodies).files == (5, 0, 0)


def test_other_events_are_ignored(submitter: Submitter) -> None:
    """They are counted and share a line in the log. S3 gets no request."""
    kinds = ["ObjectRemoved:DeleteMarkerCreated", "LifecycleExpiration:Delete", "Object Deleted"]
    bodies = [by_s3("stats/a", kind=kind, size=0, eTag="", versionId="7b") for kind in kinds]
    bodies += [by_eventbridge("stats/a", kind=kind) for kind in kinds]
    bodies += [in_envelope(body) for body in bodies]
    with submitter.reading_from(bucket_of({})) as s3:
        outcome = submitter.submit(*(sqs_record(body=body) for body in bodies))
    assert (s3.calls, outcome.retried, outcome.rejected) == ([], [], [])
    assert (outcome.files, outcome.summary["Ignored"]) == ((0, 0, 0), len(bodies))
    where = ", ".join([f"s3://{BUCKET}/stats/a"] * len(bodies))
    line = f"ignored {len(bodies)}: not a new object, or not below its bucket's prefix: {where}"
    assert outcome.log == [line]


def test_event_of_cloudtrail_is_ignored(submitter: Submitter) -> None:
    """Its source is aws.s3, too, but it has no object. The log has the message's ID."""
    parameters = {"bucketName": BUCKET, "key": "stats/a"}
    body = {"source": "aws.s3", "detail-type": "AWS API Call via CloudTrail"}
    message = sqs_record(body=json.dumps(body | {"detail": {"requestParameters": parameters}}))
    outcome = submitter.submit(message)
    assert (outcome.rejected, outcome.summary["Ignored"]) == ([], 1)
    assert outcome.log[0].endswith(f": message {message['messageId']}")


PREFIXES: list[tuple[dict[str, str], str, str, str | None]] = [
    ({}, "stats/", "stats", None),  # shorter than the prefix
    ({}, "", "stats/j/a", "stats"),
    ({BUCKET: "etl/stats/"}, "stats/", "etl/stats/j/a", "j"),
    ({BUCKET: "etl/"}, "stats/", "stats/j/a", None),
    ({BUCKET: "k=1/"}, "stats/", "k%3D1/j/a", "j"),  # decoded
    ({BUCKET: "100%25/"}, "stats/", "100%25/j/a", "j"),  # not decoded
]


@pytest.mark.parametrize(("buckets", "stats_prefix", "key", "job"), PREFIXES)
def test_files_outside_the_prefix_of_their_bucket_are_ignored(
    submitter: Submitter, buckets: dict[str, str], stats_prefix: str, key: str, job: str | None
) -> None:
    """The key may match as it is or decoded."""
    submitter.set(BUCKETS=json.dumps({"another": "jobs/"} | buckets), STATS_PREFIX=stats_prefix)
    objects = {key.replace("%3D", "="): stats(), "jobs/one/a": stats()}
    outcome = submit(submitter, objects, by_eventbridge(key), by_s3("jobs/one/a", "another"))
    assert outcome.summary["Ignored"] == (job is None)
    assert (outcome.retried, outcome.rejected) == ([], [])
    expected = {("m", (f"job:{name}",)) for name in ("one", job) if name}
    assert submitter.stored().keys() == expected


# --- Messages without an object ---


def test_test_event_of_s3_is_done(submitter: Submitter) -> None:
    """Other programs retry it for ever (open-telemetry/opentelemetry-collector-contrib 47045)."""
    body = '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}'
    outcome = submit(submitter, {}, body, in_envelope(body))
    assert (outcome.files, outcome.log) == ((0, 0, 0), [])
    assert (outcome.retried, outcome.rejected, outcome.summary["Ignored"]) == ([], [], 0)


NO_OBJECT = "the message names no object. Let only S3, SNS and EventBridge send to this queue."
UNCONFIRMED = "SNS asks to confirm a subscription. Let the stack subscribe to the topic."
SUBSCRIPTION = '{"Type": "SubscriptionConfirmation", "SubscribeURL": "https://example.com"}'
NO_EVENT = ["", "hello", "1" * 5000, "[" * 100_000, "null", "[]", "{}", '{"Type": "Notification"}']
RECORDS = ["null", "[]", '{"s3": {}}', "[null]", '[{"s3": null}]']
RECORDS += ['[{"s3": {"bucket": "b", "object": {"key": "k"}}}]']
RECORDS += ['[{"s3": {"bucket": {"name": 1}, "object": {"key": "stats/k"}}}]']
NO_NAMES = [
    *(by_s3("stats/k", bucket) for bucket in ("", "\ud800")),
    *(by_s3("stats/k").replace('"stats/k"', key) for key in ("5", '""', '"stats/\\ud800"')),
    *(by_s3("stats/k", versionId=5), by_s3("stats/k", kind=5)),
    *(by_eventbridge(key) for key in (5, "", "stats/\ud800")),
    by_eventbridge("stats/a").replace("aws.s3", "acme.s3"),
    '{"source": "aws.s3", "detail-type": "Object Created"}',
]
NO_LETTER = [*map(in_envelope, ("hello", '{"Records": 3}', in_envelope(by_s3("stats/a"))))]


def test_body_that_names_no_object_is_rejected(submitter: Submitter) -> None:
    """Other programs lose it (elastic/beats 28828)."""
    bodies = [*NO_EVENT, *map('{{"Records": {}}}'.format, RECORDS), *NO_NAMES, *NO_LETTER]
    wanted = dict.fromkeys(bodies, NO_OBJECT) | {SUBSCRIPTION: UNCONFIRMED}
    wanted |= {by_s3("stats/k", "a/b"): "Parameter validation failed"}  # never a bucket's name
    outcome = submit(submitter, {"stats/a": stats()}, by_s3("stats/a"), *wanted)
    assert (outcome.files, outcome.retried) == ((1, len(wanted), 0), [])
    found = {each.body: each.attributes["reason"].split(":")[0] for each in outcome.rejected}
    assert found == {body or "(empty)": reason for body, reason in wanted.items()}


def test_object_beside_an_unreadable_record_is_submitted(submitter: Submitter) -> None:
    """The message is rejected all the same."""
    body = json.dumps({"Records": [{}, s3_record("stats/a")]})
    outcome = submit(submitter, {"stats/a": stats()}, body)
    assert outcome.files == (1, 1, 0)
    assert outcome.rejected == [(body, {"reason": NO_OBJECT})]


# --- Messages of moto ---


def notify(way: str, moto: str, bucket: str, queue: str) -> dict[str, Any]:
    """Connect a bucket and a queue; return the bucket's configuration."""
    if way == "eventbridge":
        pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}}
        aws("events", moto).put_rule(Name=bucket, EventPattern=json.dumps(pattern))
        aws("events", moto).put_targets(Rule=bucket, Targets=[{"Id": "queue", "Arn": queue}])
        return {"EventBridgeConfiguration": {}}
    topic = aws("sns", moto).create_topic(Name=bucket)["TopicArn"]
    aws("sns", moto).subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    return {"TopicConfigurations": [{"TopicArn": topic, "Events": events}]}


def received(sqs: Any, url: str) -> Iterator[dict[str, Any]]:
    """Yield the messages of a queue, and empty it."""
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            yield sqs_record(body=message["Body"])


@pytest.mark.parametrize("way", ["sns", "eventbridge"])
def test_files_arrive_by_each_way(submitter: Submitter, way: str) -> None:
    moto, bucket = submitter.moto, f"messenger-{way}"
    s3, sqs = aws("s3", moto), aws("sqs", moto)
    s3.create_bucket(Bucket=bucket)
    url = sqs.create_queue(QueueName=bucket)["QueueUrl"]
    configuration = notify(way, moto, bucket, f"arn:aws:sqs:us-east-1:123456789012:{bucket}")
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)
    keys = ["stats/job/a b+c%.json", "stats/job/ü&.json", "stats/job/deleted 100%"]
    for number, key in enumerate([*keys, "other/a"]):
        s3.put_object(Bucket=bucket, Key=key, Body=stats(age=number))
    s3.copy_object(Bucket=bucket, Key="stats/copy of/a+b", CopySource=f"{bucket}/{keys[0]}")
    s3.delete_object(Bucket=bucket, Key=keys[2])
    outcome = submitter.submit(*received(sqs, url))
    assert submitter.stored() == {("m", ("job:job",)): [1] * 2, ("m", ("job:copy_of",)): [1]}
    assert outcome.retried == []
    assert outcome.reasons == ["the object is gone. Keep files until they are submitted."]
    tagged = len(keys) + 1 if way == "eventbridge" else 0  # moto sends one for tags at each put
    assert outcome.summary["Ignored"] == 2 + tagged  # outside the prefix, and deleted
