"""What the alarms of the heartbeat and of a silent job read."""

import json
import time
from collections.abc import Callable, Iterable

from local.datadog_server import DatadogServer
from tests.events import notification
from tests.terraform.cloud import ACCOUNT, REGION, Cloud
from tests.terraform.flow import generate, submit_waiting
from tests.terraform.root import Root

BUCKET = f"beating-{ACCOUNT}-{REGION}"
NIGHTLY = "stats/nightly/1.json"


def submitted(lines: Iterable[str], dimensions: dict[str, str]) -> int:
    """Return the metric Submitted that CloudWatch extracts from log lines, for an alarm."""
    values = [json.loads(line) for line in lines if '"_aws"' in line]
    return sum(
        line["Submitted"]
        for line in values
        for made in line["_aws"]["CloudWatchMetrics"]
        for names in made["Dimensions"]
        if {name: line[name] for name in names} == dimensions
    )


def test_alarm_sees_an_overwritten_notification(
    cloud: Cloud, new_stack: Callable[..., Root]
) -> None:
    """The heartbeat's alarm counts no other job's files, and a job's alarm only its own."""
    root = new_stack(name="beating", jobs={"nightly": {"silent_after_hours": 1}})
    root.apply()
    root.configure(mock_datasource_enabled=False)
    assert root.changes().keys() == {"update"}
    root.apply()
    made = root.resources()
    heartbeat = made["aws_cloudwatch_metric_alarm.nothing_submitted[0]"]["dimensions"]
    job = made['aws_cloudwatch_metric_alarm.job_silent["nightly"]']["metric_query"]
    [nightly] = [metric["dimensions"] for query in job for metric in query["metric"]]

    s3, sqs = cloud.client("s3"), cloud.client("sqs")
    body = json.dumps({"timestamp": int(time.time()), "rows": 1})
    with DatadogServer("X") as datadog:
        assert generate(cloud, root)[0].startswith("stats/heartbeat/")
        lines = submit_waiting(cloud, root, datadog)
        assert (submitted(lines, heartbeat), submitted(lines, nightly)) == (1, 0)
        assert [*datadog.points] == [("ddg.heartbeat", ("job:heartbeat",))]

        s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={})
        generate(cloud, root)
        s3.put_object(Bucket=BUCKET, Key=NIGHTLY, Body=body)
        queue = root.outputs()["queue_urls"]["stats"]
        sqs.send_message(QueueUrl=queue, MessageBody=notification([NIGHTLY], BUCKET))
        lines = submit_waiting(cloud, root, datadog)
    assert (submitted(lines, heartbeat), submitted(lines, nightly)) == (0, 1)
