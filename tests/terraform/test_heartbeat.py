"""The heartbeat, and what the alarms read when it or a job falls silent."""

import json
import time
from collections.abc import Callable, Iterable

import pytest

from local.datadog_server import DatadogServer
from tests.events import notification
from tests.terraform.cloud import ACCOUNT, REGION, Cloud
from tests.terraform.flow import generate, submit_waiting
from tests.terraform.root import Root

BUCKET = f"beating-{ACCOUNT}-{REGION}"
NIGHTLY = "stats/nightly/1.json"


def submitted(lines: Iterable[str], dimensions: dict[str, str]) -> int:
    """Return what CloudWatch makes of log lines for an alarm of the metric Submitted."""
    values = [json.loads(line) for line in lines if '"_aws"' in line]
    return sum(
        line["Submitted"]
        for line in values
        for made in line["_aws"]["CloudWatchMetrics"]
        for names in made["Dimensions"]
        if {name: line[name] for name in names} == dimensions
    )


def test_overwritten_notification_is_told(cloud: Cloud, new_stack: Callable[..., Root]) -> None:
    """Its alarm then reads nothing, though files come by another way; so does a silent job's."""
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


@pytest.mark.parametrize(("minute", "after"), [(0, 27 * 60), (30, 26 * 60 + 30), (59, 26 * 60 + 1)])
def test_silent_job_is_told_within_two_hours(stack: Root, minute: int, after: int) -> None:
    """The alarm's periods are full hours: it rings 26 to 27 after a file, and not at 25."""
    alarm = stack.resources()['aws_cloudwatch_metric_alarm.job_silent["nightly*"]']
    [period] = [metric["period"] for query in alarm["metric_query"] for metric in query["metric"]]
    hours = range(1, alarm["evaluation_periods"] + 1)

    def rings(now: int) -> bool:
        ends = [now // 60 * 60 - hour * period // 60 + period // 60 for hour in hours]
        submitted = [int(end - period // 60 <= minute < end) for end in ends]
        return all(value < alarm["threshold"] for value in submitted)

    assert next(each - minute for each in range(60, 9999) if rings(each)) == after
