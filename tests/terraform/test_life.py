"""The life of a stack, from the first apply to destroy, and the plans of others.

It is one story, because it also runs with the genuine provider, which takes minutes to apply.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from local.datadog_server import DatadogServer
from tests.terraform.cloud import ACCOUNT, REGION, Cloud
from tests.terraform.flow import MadeFunction, generate, submit_waiting
from tests.terraform.owner import BUCKETS, TOPIC, Owner
from tests.terraform.root import PROJECT, Root, Step

BUCKET = f"life-{ACCOUNT}-{REGION}"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:datadog-AbCdEf"
KMS_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"

GENERATOR = "aws_lambda_function.mock_datasource[0]"
GENERATOR_STARTS = "aws_cloudwatch_event_target.mock_schedule[0]"
NOTIFICATION = "aws_s3_bucket_notification.stats[0]"
SUBMITTER = "aws_lambda_function.metric_submit"
SUBMITTER_STARTS = "aws_lambda_event_source_mapping.metric_submit"
RULE = 'aws_cloudwatch_event_rule.bucket["acme-data"]'
RULE_STARTS = 'aws_cloudwatch_event_target.bucket["acme-data"]'
SUBSCRIPTION = f'aws_sns_topic_subscription.bucket["{TOPIC}"]'
BEFORE = [  # what must exist before the other is created, and be destroyed after it
    ("aws_sqs_queue_policy.stats", NOTIFICATION),  # S3 may send
    (NOTIFICATION, GENERATOR),  # S3 sends nothing for earlier files
    (NOTIFICATION, "aws_cloudwatch_event_rule.mock_schedule[0]"),
    ("aws_iam_role_policy.mock_datasource[0]", GENERATOR),
    ("aws_lambda_function_event_invoke_config.mock_datasource[0]", GENERATOR_STARTS),
    ("aws_lambda_permission.mock_schedule[0]", GENERATOR_STARTS),
    ("aws_iam_role_policy.metric_submit", SUBMITTER),
    ("aws_cloudwatch_log_group.metric_submit", SUBMITTER),
    (SUBMITTER, SUBMITTER_STARTS),
    ("aws_sns_topic_policy.alarms", 'aws_cloudwatch_metric_alarm.pipeline["files-rejected"]'),
    (GENERATOR_STARTS, "aws_cloudwatch_metric_alarm.nothing_submitted[0]"),
    ("aws_sqs_queue_policy.stats", RULE_STARTS),
    ("aws_sqs_queue_policy.dead_letter", RULE_STARTS),
    ("aws_sqs_queue_policy.stats", SUBSCRIPTION),
    (SUBMITTER, NOTIFICATION),  # without a prefix it would ignore the files below it
    (SUBMITTER, RULE),
    (SUBMITTER, SUBSCRIPTION),
]


def in_order(steps: list[Step], *wanted: Step) -> bool:
    """Return whether the wanted steps were taken in this order."""
    places = [steps.index(step) for step in wanted]
    return places == sorted(places)


def test_stack_lives_and_leaves_nothing(
    cloud: Cloud, new_stack: Callable[..., Root], tmp_path: Path
) -> None:
    """Apply, plan no changes, submit files, change in place, destroy without keys and zips.

    The stack doesn't change the configuration of three other buckets; their owner does.
    """
    owner = Owner(cloud, tmp_path)
    before, configured = cloud.names(), owner.configured()
    tags = {"team": "data"}
    root = new_stack(
        name="life", stats_prefix="jobs/", constant_tags=["env:test"], tags=tags, buckets=BUCKETS
    )
    root.run("validate")

    steps = root.steps("apply")
    for first, then in BEFORE:
        wanted = Step("complete", "create", first), Step("start", "create", then)
        assert in_order(steps, *wanted), wanted
    assert root.changes() == {}
    assert {
        address
        for address, values in root.resources().items()
        if values.get("tags_all", tags) != tags
    } == set()

    outputs = root.outputs()
    applied = owner.configured()
    assert applied == configured | {"subscribers": applied["subscribers"]}
    for _ in range(2):  # the second time changes nothing
        owner.type(filter(None, (each["notify"] for each in outputs["bucket_steps"].values())))
    left, typed = owner.configured(), owner.configured()
    [notified] = typed["acme-direct"].pop("QueueConfigurations")
    assert notified["QueueArn"] == outputs["queue_arn"]
    assert typed["acme-data"].pop("EventBridgeConfiguration") == {}
    assert typed == applied

    now = int(time.time())
    with DatadogServer("X") as datadog:
        for bucket, values in BUCKETS.items():
            body = json.dumps({"timestamp": now, "rows": 1})
            for folder in (f"{values.get('prefix', 'stats/')}{bucket}/", "beside/"):
                owner.s3.put_object(Bucket=bucket, Key=f"{folder}a b+c=ü.json", Body=body)
        [generated] = generate(cloud, root)
        s3 = cloud.client("s3")
        good = json.dumps({"timestamp": now, "rows": 7})
        for key, body in (("1.json", good), ("bad.json", "{"), ("gone.json", good)):
            s3.put_object(Bucket=BUCKET, Key=f"jobs/nightly/{key}", Body=body)
        s3.delete_object(Bucket=BUCKET, Key="jobs/nightly/gone.json")
        printed = submit_waiting(cloud, root, datadog)
    assert generated.startswith("jobs/mock-datasource/")
    assert datadog.points["rows", ("env:test", "job:nightly")] == {now: 7}
    for bucket in BUCKETS:
        assert datadog.points["rows", ("env:test", f"job:{bucket}")] == {now: 1}
    generated_metrics = {one for one, tags in datadog.points if "job:mock-datasource" in tags}
    assert generated_metrics == {"sample.stats", "processed.data"}
    summaries = [json.loads(line) for line in printed if '"Retried"' in line]
    assert sum(summary["Submitted"] for summary in summaries) == 6  # acme-archive has no prefix
    assert sum(summary["Refused"] for summary in summaries) == 2

    root.configure(stats_prefix="stats/")  # stops the generator meanwhile
    assert in_order(
        root.steps("apply"),
        Step("complete", "delete", GENERATOR_STARTS),
        Step("start", "update", NOTIFICATION),
        Step("complete", "update", NOTIFICATION),
        Step("start", "update", GENERATOR),
        Step("complete", "update", GENERATOR),
        Step("start", "create", GENERATOR_STARTS),
    )
    submitter = MadeFunction(cloud, root, "life-metric-submit")
    assert submitter.environment["STATS_PREFIX"] == "stats/"
    state = root.state()
    for resource in state["resources"]:  # as in the state of 1.0
        if resource["type"].startswith("aws_s3_bucket"):
            for instance in resource["instances"]:
                instance.pop("index_key", None)
    (root.folder / "terraform.tfstate").write_text(json.dumps(state))
    assert root.changes().keys() == {"move"}

    for zip_file in root.folder.glob("*.zip"):
        zip_file.unlink()
    root.unset_keys()
    root.run("validate")
    steps = root.steps("destroy")
    for first, then in BEFORE:
        wanted = Step("complete", "delete", then), Step("start", "delete", first)
        assert in_order(steps, *wanted), wanted
    assert cloud.names() == before
    assert owner.configured() == left | {"subscribers": []}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {
                "ddg_api_key": "X",
                "aws_region": REGION,
                "tags": {"cost centre": "4711"},
                "constant_tags": ["env:prod"],
                "max_age_seconds": 0,
                "force_destroy": False,
                "mock_interval_minutes": 60,
                "batch_size": 1000,
                "batch_window": 300,
                "alarm_email": "oncall@example.com",
                "permissions_boundary_arn": f"arn:aws:iam::{ACCOUNT}:policy/boundary",
                "iam_role_path": "/teams/data/",
                "subnet_ids": ["subnet-0123456789abcdef0"],
                "security_group_ids": ["sg-0123456789abcdef0"],
                "kms_key_arn": KMS_KEY,
                "architectures": ["x86_64"],
                "jobs": {"nightly": {"silent_after_hours": 26, "mapping": "numbers(@)"}},
            },
            id="much given",
        ),
        pytest.param(
            {
                "ddg_api_key_secret_arn": SECRET,
                "ddg_api_key_kms_key_arn": KMS_KEY,
                "create_bucket": False,
                "buckets": BUCKETS,
            },
            id="key in a secret, others' buckets alone",
        ),
    ],
)
def test_plan_is_quiet(new_stack: Callable[..., Root], settings: dict[str, object]) -> None:
    """The plan of a stack with other settings has no warning."""
    root = new_stack(name="planned", **settings)
    root.unset_keys()
    assert "0 to change, 0 to destroy." in root.plan()


@pytest.mark.parametrize("name", sorted(each.name for each in (PROJECT / "examples").iterdir()))
def test_plan_of_example_is_quiet(new_example: Callable[[str], Root], name: str) -> None:
    """The same with the stack as a module."""
    root = new_example(name)
    assert "0 to change, 0 to destroy." in root.plan()


def test_region_must_be_given(new_stack: Callable[..., Root]) -> None:
    """Terraform says so."""
    printed = new_stack().plan(code=1, AWS_REGION="")
    assert "requires explicit\nconfiguration. Add a provider block to the root module" in printed
