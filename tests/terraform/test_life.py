"""The life of a stack, from the first apply to the last thing gone."""

import json
import time
from collections.abc import Callable

from local.datadog_server import DatadogServer
from tests.terraform.cloud import ACCOUNT, REGION, Cloud
from tests.terraform.flow import MadeFunction, generate, submit_waiting
from tests.terraform.root import Root

API_KEY = "0123456789abcdef0123456789abcdef"
BUCKET = f"life-{ACCOUNT}-{REGION}"


def test_stack_lives_and_leaves_nothing(cloud: Cloud, new_stack: Callable[..., Root]) -> None:
    """Apply, no changes, a file to Datadog, a change in place, destroy without keys and zips.

    One story, since with the genuine provider an apply takes minutes.
    """
    before = cloud.names()
    root = new_stack(
        name="life",
        stats_prefix="jobs/",
        constant_tags=["env:test"],
        ddg_api_key="X",
        ddg_app_key="X",
    )
    root.run("validate")

    root.apply()
    assert root.changes() == {}

    outputs = root.outputs()
    submitter = MadeFunction(cloud, root, "life-metric-submit")
    generator = MadeFunction(cloud, root, "life-mock-datasource")
    assert submitter.environment == {
        "DATADOG_API_KEY": "X",
        "DATADOG_APP_KEY": "X",
        "DATADOG_HOST": "https://api.datadoghq.com",
        "STATS_PREFIX": "jobs/",
        "REJECTED_QUEUE_URL": outputs["queue_urls"]["rejected"],
        "CONSTANT_TAGS": "env:test",
        "MAX_AGE_SECONDS": "3600",
    }
    assert generator.environment == {"STATS_BUCKET": BUCKET, "STATS_PREFIX": "jobs/"}

    now = int(time.time())
    with DatadogServer("X") as datadog:
        [generated] = generate(cloud, root)
        body = json.dumps({"timestamp": now, "rows": 7})
        cloud.client("s3").put_object(Bucket=BUCKET, Key="jobs/nightly/1.json", Body=body)
        printed = submit_waiting(cloud, root, datadog)
    assert generated.startswith("jobs/mock-datasource/")
    assert datadog.points["rows", ("env:test", "job:nightly")] == {now: 7}
    assert {metric for metric, tags in datadog.points if "job:mock-datasource" in tags} == {
        "sample.stats",
        "processed.data",
    }
    summaries = [json.loads(line) for line in printed if '"Submitted"' in line]
    assert sum(summary["Submitted"] for summary in summaries) == 2

    assert root.changes(max_age_seconds=7200).keys() == {"update"}
    root.apply(max_age_seconds=7200)
    changed = MadeFunction(cloud, root, "life-metric-submit")
    assert changed.environment == {**submitter.environment, "MAX_AGE_SECONDS": "7200"}
    assert root.changes(max_age_seconds=7200) == {}

    for zip_file in root.folder.glob("*.zip"):
        zip_file.unlink()
    root.run("validate")
    root.destroy()
    assert cloud.names() == before


def test_key_in_a_secret_is_nowhere_else(cloud: Cloud, new_stack: Callable[..., Root]) -> None:
    """The submitter reads it by its role; it is not in the state, the environment or the log."""
    created = cloud.client("secretsmanager").create_secret(
        Name="datadog", SecretString=json.dumps({"api_key": API_KEY})
    )
    root = new_stack(name="secret-key", ddg_api_key_secret_arn=created["ARN"])
    root.apply()
    with DatadogServer(API_KEY) as datadog:
        generate(cloud, root)
        printed = submit_waiting(cloud, root, datadog)
    assert len(datadog.points) == 2
    assert API_KEY not in (root.folder / "terraform.tfstate").read_text()
    assert API_KEY not in str(MadeFunction(cloud, root, "secret-key-metric-submit").environment)
    assert API_KEY not in "".join(printed)
