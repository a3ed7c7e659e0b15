"""What the submitter reads on its queue: S3's word, by itself, through SNS or by EventBridge."""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest

from tests.events import BUCKET, s3_record, sqs_record, stats
from tests.scripted_server import Call, Objects, bucket_of, s3_error
from tests.submitter import Outcome, Submitter, aws

NAMES = ["plain.json", "a b  c.json", "a+b.json", "100%.json", "100%25%2B%2F.json", "%2B %%%"]
NAMES += ["+%20+", "day=1/at:12.json", "ünï-日本-😀-e\u0301.json", "a&b=c?d#e;f'\"<>.json"]
NAMES += ["/double.json", "x" * 1014, "line\nend\t\x1b[31m.json"]  # of 1,024 bytes; not by moto
KEYS = [f"stats/job/{name}" for name in NAMES]
CREATED, MISSING = "Object Created", object()


def record(key: str, bucket: str = BUCKET, *, kind: Any = "ObjectCreated:Put", **told: Any) -> Any:
    """Return a record of S3's that has this of an object as well."""
    named = s3_record(key, bucket)
    named["s3"]["object"] |= told
    return named | {"eventName": kind}


def by_s3(key: str, bucket: str = BUCKET, **told: Any) -> str:
    return json.dumps({"Records": [record(key, bucket, **told)]})


def by_eventbridge(key: Any, bucket: str = BUCKET, *, kind: Any = CREATED, **told: Any) -> str:
    """Return EventBridge's event in short: its key is bare.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
    """
    named = {"key": key, "size": 46, "etag": "60add5e9bd4c3a48", "sequencer": "0062E99A8"} | told
    detail = {"version": "0", "bucket": {"name": bucket}, "object": named}
    event = {"version": "0", "source": "aws.s3", "account": "123456789012", "detail": detail}
    return json.dumps(event if kind is MISSING else event | {"detail-type": kind})


def in_envelope(body: str) -> str:
    """Return a body as SNS wraps it."""
    topic = "arn:aws:sns:us-east-1:123456789012:uploads"
    return json.dumps({"Type": "Notification", "TopicArn": topic, "Message": body})


def submit(submitter: Submitter, objects: Objects, *bodies: str) -> Outcome:
    return submitter.submit_from(objects, *(sqs_record(body=body) for body in bodies))


# --- Keys ---


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(by_s3, id="s3"),  # through SNS too, delivered raw
        pytest.param(lambda key: in_envelope(by_s3(key)), id="sns"),
        pytest.param(by_eventbridge, id="eventbridge"),
        pytest.param(lambda key: in_envelope(by_eventbridge(key)), id="eventbridge-through-sns"),
        pytest.param(lambda key: by_eventbridge(quote(key)), id="eventbridge-of-localstack"),
        pytest.param(lambda key: by_eventbridge(quote(key, safe="")), id="slashes-encoded-too"),
        pytest.param(partial(by_eventbridge, kind=MISSING), id="security-lake"),  # beats 36630
    ],
)
def test_key_is_read_from_every_messenger(submitter: Submitter, body: Callable[[str], str]) -> None:
    """S3's is a form's field; EventBridge's is bare, but some stand-ins encode it."""
    files = {key: stats(age=n, m=n) for n, key in enumerate(KEYS)}
    assert submit(submitter, files, *map(body, KEYS)).files == (len(KEYS), 0, 0)
    assert submitter.stored() == {("m", ("job:job",)): [*range(len(KEYS) - 1, -1, -1)]}


def test_key_is_decoded_no_further(submitter: Submitter) -> None:
    """Where S3 has both, the key as it is is the one that was told. `+` is no space."""
    names = {"stats/a%2Bb c": "told", "stats/a+b c": "decoded", "stats/a b c": "twice"}
    files = {key: stats(**{name: 1}) for key, name in names.items()}
    told = [by_s3("stats/a%2Bb c"), by_eventbridge("stats/a%2Bb c")]  # elastic/beats 33998, 38012
    decoded = [by_eventbridge("stats/a+b c"), by_eventbridge("stats/a%2Bb%20c")]
    for metric, body in [
        *(("told", body) for body in told),
        *(("decoded", each) for each in decoded),
    ]:
        submitter.datadog.points.clear()
        assert submit(submitter, files, body).files == (1, 0, 0)
        assert list(submitter.stored()) == [(metric, ())]


@pytest.mark.parametrize(
    ("told", "asked"), [("a%20b", ["a%20b", "a b"]), ("a+b", ["a+b"]), ("100%", ["100%"])]
)
def test_object_is_gone_when_no_form_is_there(
    submitter: Submitter, told: str, asked: list[str]
) -> None:
    """It is told by the key as it came."""
    with submitter.reading_from(bucket_of({})) as s3:
        outcome = submitter.submit(sqs_record(body=by_eventbridge(f"stats/{told}")))
    assert s3.calls == [f"GET /{BUCKET}/stats/{key}" for key in asked]
    assert outcome.reasons == ["the object is gone. Keep files until they are submitted."]
    assert outcome.rejected[0].attributes["key"] == f"stats/{told}"
    assert f"s3://{BUCKET}/stats/{told}: " in outcome.log[0]


def test_file_is_told_by_the_key_that_was_found(submitter: Submitter) -> None:
    """So that the operator can fetch it. Also a large one, which is asked for twice."""
    keys = ["stats/a b", "stats/c d"]
    files = dict(zip(keys, (b"no", b"no".rjust(300_000)), strict=True))
    outcome = submit(submitter, files, *(by_eventbridge(quote(key)) for key in keys))
    assert sorted(message.attributes["key"] for message in outcome.rejected) == keys
    assert [f"s3://{BUCKET}/{key}: " in outcome.log[n] for n, key in enumerate(keys)] == [True] * 2


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        ("403 F", "AccessDenied", f"AccessDenied: User may not kms:Decrypt s3:::{BUCKET}/..."),
        ("404 N", "NoSuchBucket", "NoSuchBucket"),
    ],
)
def test_only_a_missing_key_is_asked_for_decoded(
    submitter: Submitter, status: str, code: str, told: str
) -> None:
    """Of a denial S3's own words tell the cause; without the key, so that many share a line."""
    words = f"User may not kms:Decrypt s3:::{BUCKET}/stats/a%20b"
    with submitter.reading_from(lambda call: s3_error(status, code, words)) as s3:
        outcome = submitter.submit(sqs_record(body=by_eventbridge("stats/a%20b")))
    assert (len(s3.calls), outcome.files) == (1, (0, 0, 1))
    assert outcome.log[0].startswith(f"retried 1: S3 answered {told}. Look at the role's policy")


def test_both_forms_of_a_key_have_one_deadline(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that S3 is slow with costs its neighbours no more than any other."""
    monkeypatch.setattr(submitter.module, "FETCH_SECONDS", 0.8)
    bucket = bucket_of({"stats/a b": stats()})

    def slowly(call: Call) -> bytes | Iterable[bytes]:
        call.stopping.wait(0.5)
        return bucket(call)

    with submitter.reading_from(slowly):
        outcome = submitter.submit(sqs_record(body=by_eventbridge("stats/a%20b")))
    where = f"s3://{BUCKET}/stats/a%20b"
    assert outcome.log == [f"retried 1: S3 did not send the object in time: {where}"]


# --- Versions ---


@pytest.mark.parametrize(("body", "name"), [(by_s3, "versionId"), (by_eventbridge, "version-id")])
def test_each_version_of_an_overwritten_key_is_read(
    submitter: Submitter, body: Callable[..., str], name: str
) -> None:
    """On a versioned bucket each event names its own; the rejected message keeps it as it came."""
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


# --- What is no new stats file ---


def test_what_was_created_is_read(submitter: Submitter) -> None:
    """However it was; and where nothing is said of it."""
    kinds = ("ObjectCreated:Put", "ObjectCreated:New", "", None)
    bodies = [by_s3("stats/a", kind=kind) for kind in kinds]
    bodies += [by_eventbridge("stats/a", kind=kind) for kind in ("Object Created", "", None)]
    assert submit(submitter, {"stats/a": stats()}, *bodies).files == (7, 0, 0)


EVENTS = ["ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated", "LifecycleExpiration:Delete"]
EVENTS += ["ObjectRestore:Completed", "ObjectTagging:Put", "what comes"]
CHANGES = ["Object Deleted", "Object Tags Added", "Object Restore Completed", "What comes"]


def test_what_was_not_created_is_ignored(submitter: Submitter) -> None:
    """It is done: counted, told in one line, and S3 isn't asked."""
    bodies = [by_s3("stats/a", kind=kind, size=0, eTag="", versionId="7b") for kind in EVENTS]
    bodies += [by_eventbridge("stats/a", kind=kind) for kind in CHANGES]
    bodies += [in_envelope(body) for body in bodies]
    with submitter.reading_from(bucket_of({})) as s3:
        outcome = submitter.submit(*(sqs_record(body=body) for body in bodies))
    assert (s3.calls, outcome.retried, outcome.rejected) == ([], [], [])
    assert (outcome.files, outcome.summary["Ignored"]) == ((0, 0, 0), len(bodies))
    where = ", ".join([f"s3://{BUCKET}/stats/a"] * len(bodies))
    told = f"ignored {len(bodies)}: not a new object, or not below its bucket's prefix: {where}"
    assert outcome.log == [told]


def test_event_without_an_object_is_ignored_too(submitter: Submitter) -> None:
    """CloudTrail's are of the same source. It is told by its message."""
    parameters = {"bucketName": BUCKET, "key": "stats/a"}
    body = {"source": "aws.s3", "detail-type": "AWS API Call via CloudTrail"}
    message = sqs_record(body=json.dumps(body | {"detail": {"requestParameters": parameters}}))
    outcome = submitter.submit(message)
    assert (outcome.rejected, outcome.summary["Ignored"]) == ([], 1)
    assert outcome.log[0].endswith(f": message {message['messageId']}")


@pytest.mark.parametrize(
    ("buckets", "stats_prefix", "key", "job"),
    [
        ({}, "stats/", "stats/j/a", "j"),
        ({}, "stats/", "other/j/a", None),
        ({}, "stats/", "stats", None),  # shorter than the prefix
        ({}, "", "stats/j/a", "stats"),
        ({BUCKET: "etl/stats/"}, "stats/", "etl/stats/j/a", "j"),
        ({BUCKET: "etl/"}, "stats/", "stats/j/a", None),
        ({BUCKET: ""}, "stats/", "j/a", "j"),
        ({BUCKET: "k=1/"}, "stats/", "k%3D1/j/a", "j"),  # decoded
        ({BUCKET: "100%25/"}, "stats/", "100%25/j/a", "j"),  # as it is
    ],
)
def test_files_below_a_buckets_prefix_are_taken(
    submitter: Submitter, buckets: dict[str, str], stats_prefix: str, key: str, job: str | None
) -> None:
    """The others, that a topic or a rule may tell of, are ignored. Both forms of a key count."""
    submitter.set(BUCKETS=json.dumps({"another": "jobs/"} | buckets), STATS_PREFIX=stats_prefix)
    objects = {key.replace("%3D", "="): stats(), "jobs/one/a": stats()}
    outcome = submit(submitter, objects, by_eventbridge(key), by_s3("jobs/one/a", "another"))
    assert outcome.summary["Ignored"] == (job is None)
    assert (outcome.retried, outcome.rejected) == ([], [])
    expected = {("m", (f"job:{name}",)) for name in ("one", job) if name}
    assert submitter.stored().keys() == expected


def test_ignored_object_settles_nothing(submitter: Submitter) -> None:
    """Its message ends as its other objects do."""
    others = [record("stats/a", kind="ObjectRemoved:Delete"), record("other/a")]
    denied = s3_error("403 Forbidden", "AccessDenied")
    objects: Objects = {"stats/good": stats(), "stats/bad": b"no", "stats/no": lambda call: denied}
    bodies = [json.dumps({"Records": [*others, record(key)]}) for key in objects]
    outcome = submit(submitter, objects, *bodies)
    assert (outcome.files, outcome.summary["Ignored"]) == ((1, 1, 1), 6)
    assert outcome.retried == [2]
    assert [message.body for message in outcome.rejected] == [bodies[1]]
    assert outcome.rejected[0].attributes["key"] == "stats/bad"


# --- What names no object ---


def test_test_event_is_done_quietly(submitter: Submitter) -> None:
    """Elsewhere it came for ever (open-telemetry/opentelemetry-collector-contrib 47045)."""
    body = '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}'
    outcome = submit(submitter, {}, body, in_envelope(body))
    assert (outcome.files, outcome.log) == ((0, 0, 0), [])
    assert (outcome.retried, outcome.rejected, outcome.summary["Ignored"]) == ([], [], 0)


def with_s3(part: str) -> str:
    """Return a notification whose one record has this in place of what S3 writes of the object."""
    return f'{{"Records": [{{"s3": {part}}}]}}'


NO_OBJECT = "the message names no object. Let only S3, SNS and EventBridge send to this queue."
UNCONFIRMED = "SNS asks to confirm a subscription. Let the stack subscribe to the topic."
SUBSCRIPTION = '{"Type": "SubscriptionConfirmation", "SubscribeURL": "https://example.com"}'
NO_JSON = ["", "hello", "1" * 5000, "[" * 100_000]
NO_NOTIFICATION = ["null", '"Records"', "[]", '{"Event": "s3:Other"}', '{"Type": "Notification"}']
NO_RECORDS = ["{}", *(f'{{"Records": {each}}}' for each in ("null", "[]", '{"s3": {}}', "[null]"))]
NO_S3 = ["null", '{"bucket": "b", "object": {"key": "k"}}']
NO_S3 += [
    f'{{"bucket": {{"name": {name}}}, "object": {{"key": "stats/k"}}}}' for name in (1, "null")
]
NO_NAMES = [
    *(by_s3("stats/k", bucket) for bucket in ("", "\ud800")),
    *(by_s3("stats/k").replace('"stats/k"', key) for key in ("5", '""', '"stats/\\ud800"')),
    *(by_s3("stats/k", versionId=5), by_s3("stats/k", kind=5)),
    *(by_eventbridge(key) for key in (5, "", "stats/\ud800")),
    by_eventbridge("stats/a").replace("aws.s3", "acme.s3"),
    by_eventbridge("stats/a").replace("source", "sauce"),
    '{"source": "aws.s3", "detail-type": "Object Created"}',
]
NO_LETTER = [*map(in_envelope, ("hello", '{"Records": 3}', in_envelope(by_s3("stats/a"))))]


def test_body_that_names_no_object_is_rejected(submitter: Submitter) -> None:
    """It is kept, its reason blames nobody who may send, and its neighbour goes through.

    Elsewhere it was deleted as done (elastic/beats 28828).
    """
    bodies = [*NO_JSON, *NO_NOTIFICATION, *NO_RECORDS, *map(with_s3, NO_S3), *NO_NAMES, *NO_LETTER]
    wanted = dict.fromkeys(bodies, NO_OBJECT) | {SUBSCRIPTION: UNCONFIRMED}
    wanted |= {by_s3("stats/k", "a/b"): "Parameter validation failed"}  # a name that S3 never has
    outcome = submit(submitter, {"stats/a": stats()}, by_s3("stats/a"), *wanted)
    assert (outcome.files, outcome.retried) == ((1, len(wanted), 0), [])
    found = {each.body: each.attributes["reason"].split(":")[0] for each in outcome.rejected}
    assert found == {body or "(empty)": reason for body, reason in wanted.items()}


def test_unreadable_record_leaves_its_neighbours(submitter: Submitter) -> None:
    """What a message does name is submitted; the message is kept for what it doesn't."""
    body = json.dumps({"Records": [{}, s3_record("stats/a")]})
    outcome = submit(submitter, {"stats/a": stats()}, body)
    assert outcome.files == (1, 1, 0)
    assert outcome.rejected == [(body, {"reason": NO_OBJECT})]


# --- The bodies that moto really sends ---


def notify(way: str, moto: str, bucket: str, queue: str) -> dict[str, Any]:
    """Make what stands between a bucket and a queue; return the bucket's configuration."""
    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    if way == "s3":
        return {"QueueConfigurations": [{"QueueArn": queue, "Events": events}]}
    if way == "eventbridge":
        pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}}
        aws("events", moto).put_rule(Name=bucket, EventPattern=json.dumps(pattern))
        aws("events", moto).put_targets(Rule=bucket, Targets=[{"Id": "queue", "Arn": queue}])
        return {"EventBridgeConfiguration": {}}
    topic = aws("sns", moto).create_topic(Name=bucket)["TopicArn"]
    raw = {"RawMessageDelivery": "true" if way == "sns-raw" else "false"}
    aws("sns", moto).subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes=raw)
    return {"TopicConfigurations": [{"TopicArn": topic, "Events": events}]}


def taken(sqs: Any, url: str) -> Iterator[dict[str, Any]]:
    """Yield the messages of a queue, and empty it."""
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            yield sqs_record(body=message["Body"])


@pytest.mark.parametrize("way", ["s3", "sns", "sns-raw", "eventbridge"])
def test_files_arrive_by_each_way(submitter: Submitter, way: str) -> None:
    """Put, copied, uploaded in parts and deleted, as moto tells it."""
    moto, bucket = submitter.moto, f"messenger-{way}"
    s3, sqs = aws("s3", moto), aws("sqs", moto)
    s3.create_bucket(Bucket=bucket)
    url = sqs.create_queue(QueueName=bucket)["QueueUrl"]
    configuration = notify(way, moto, bucket, f"arn:aws:sqs:us-east-1:123456789012:{bucket}")
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)
    for number, key in enumerate(KEYS[:-1]):
        s3.put_object(Bucket=bucket, Key=key, Body=stats(age=number, put=1))
    s3.copy_object(Bucket=bucket, Key="stats/copy of/a+b", CopySource=f"{bucket}/{KEYS[0]}")
    parts = {"Bucket": bucket, "Key": "stats/in parts/1+1"}
    parts["UploadId"] = s3.create_multipart_upload(**parts)["UploadId"]
    etag = s3.upload_part(**parts, PartNumber=1, Body=stats(parts=1))["ETag"]
    complete = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(**parts, MultipartUpload=complete)
    s3.put_object(Bucket=bucket, Key="other/a", Body=stats(no=1))
    s3.put_object(Bucket=bucket, Key="stats/deleted 100%", Body=stats(no=1))
    s3.delete_object(Bucket=bucket, Key="stats/deleted 100%")
    outcome = submitter.submit(*taken(sqs, url))
    assert submitter.stored() == {
        ("put", ("job:job",)): [1] * len(KEYS[:-1]),
        ("put", ("job:copy_of",)): [1],
        ("parts", ("job:in_parts",)): [1],
    }
    assert outcome.retried == []
    assert outcome.reasons == ["the object is gone. Keep files until they are submitted."]
    tagged = len(KEYS) + 2 if way == "eventbridge" else 0  # moto tells of tags at each put
    assert outcome.summary["Ignored"] == 2 + tagged  # beside the prefix, and deleted
