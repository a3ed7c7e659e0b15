"""The policies' text; test_life.py runs the functions under moto's enforcement."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from local.datadog_server import DatadogServer
from tests.terraform.cloud import ACCOUNT, REGION, Cloud
from tests.terraform.flow import generate, submit_waiting
from tests.terraform.root import Root

API_KEY = "0123456789abcdef0123456789abcdef"
BUCKET = f"arn:aws:s3:::ddg-stats-{ACCOUNT}-{REGION}"
QUEUES = f"arn:aws:sqs:{REGION}:{ACCOUNT}:ddg-stats"
LOGS = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/ddg-stats"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:ddg-stats-alarms"
ALARMS = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm"
KMS_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER_ACCOUNT = "210987654321"
VPC = (
    "ec2:CreateNetworkInterface ec2:DescribeNetworkInterfaces ec2:DescribeSubnets "
    "ec2:DeleteNetworkInterface ec2:AssignPrivateIpAddresses ec2:UnassignPrivateIpAddresses"
)


def allow(actions: str, *resources: str, **more: object) -> Any:
    """Return a statement that allows the actions, given with spaces between."""
    given = {"Effect": "Allow", "Action": actions.split(), "Resource": list(resources)}
    return normalised({**given, **more})


def allow_service(
    service: str, actions: str, resource: str, source: object, account: str = ACCOUNT
) -> Any:
    """Return a statement that allows an AWS service to act for a source; "" is any account."""
    condition = {"ArnEquals": {"aws:SourceArn": source}}
    if account:
        condition["StringEquals"] = {"aws:SourceAccount": account}
    return allow(actions, resource, Principal={"Service": service}, Condition=condition)


def refuse_plain_http(actions: str, *resources: str) -> Any:
    """Return the statement that denies requests without TLS."""
    condition = {"Bool": {"aws:SecureTransport": "false"}}
    return allow(actions, *resources, Effect="Deny", Principal="*", Condition=condition)


def normalised(value: Any) -> Any:
    """Return JSON with sorted lists, and the item for a list of one, which mean the same to AWS."""
    if isinstance(value, list):
        items = sorted(map(normalised, value), key=json.dumps)
        return items[0] if len(items) == 1 else items
    if isinstance(value, dict):
        return {name: normalised(item) for name, item in value.items() if name != "Sid"}
    return value


SUBMITTER = [
    allow("sqs:ReceiveMessage sqs:DeleteMessage sqs:GetQueueAttributes", f"{QUEUES}-stats"),
    allow("s3:GetObject s3:GetObjectVersion", f"{BUCKET}/stats/*"),
    allow("s3:ListBucket", BUCKET),
    allow("sqs:SendMessage", f"{QUEUES}-rejected"),
    allow("logs:CreateLogStream logs:PutLogEvents", f"{LOGS}-metric-submit:*"),
]
GENERATOR = [
    allow("s3:PutObject", f"{BUCKET}/stats/mock-datasource/*"),
    allow("logs:CreateLogStream logs:PutLogEvents", f"{LOGS}-mock-datasource:*"),
]
MAIN_QUEUE = [
    refuse_plain_http("sqs:*", f"{QUEUES}-stats"),
    allow_service("s3.amazonaws.com", "sqs:SendMessage", f"{QUEUES}-stats", BUCKET),
]
LAMBDA_ALONE = {
    "Effect": "Allow",
    "Action": "sts:AssumeRole",
    "Principal": {"Service": "lambda.amazonaws.com"},
}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("aws_iam_role_policy.metric_submit", SUBMITTER),
        ("aws_iam_role_policy.mock_datasource[0]", GENERATOR),
        ("aws_iam_role.metric_submit", [LAMBDA_ALONE]),
        ("aws_iam_role.mock_datasource[0]", [LAMBDA_ALONE]),
        ("aws_s3_bucket_policy.stats[0]", [refuse_plain_http("s3:*", BUCKET, f"{BUCKET}/*")]),
        ("aws_sqs_queue_policy.stats", MAIN_QUEUE),
        (
            "aws_sqs_queue_policy.dead_letter",
            [refuse_plain_http("sqs:*", f"{QUEUES}-dead-letter")],
        ),
        ("aws_sqs_queue_policy.rejected", [refuse_plain_http("sqs:*", f"{QUEUES}-rejected")]),
    ],
)
def test_policy_says_exactly(stack: Root, address: str, expected: list[Any]) -> None:
    assert statements(stack, address) == normalised(expected)


def test_policies_name_only_the_given_buckets(cloud: Cloud, new_stack: Callable[..., Root]) -> None:
    """And their topics, rules and keys, for the role and both queues."""
    topic = cloud.client("sns").create_topic(Name="uploads")["TopicArn"]
    buckets = {
        "acme-data": {"prefix": "etl/", "kms_key_arn": KMS_KEY},
        "acme-logs": {"prefix": "", "topic_arn": topic},
        "acme-direct": {"notify": "s3"},
        "acme-abroad": {"notify": "s3", "account_id": OTHER_ACCOUNT},
    }
    root = new_stack(name="others", create_bucket=False, buckets=buckets)
    root.apply()
    data, logs, direct, abroad = (f"arn:aws:s3:::{bucket}" for bucket in buckets)
    rule = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/others.acme-data"
    queues = QUEUES.replace("ddg-stats", "others")
    stats, dead_letter = f"{queues}-stats", f"{queues}-dead-letter"

    keys = [f"{data}/etl/*", f"{logs}/*", f"{direct}/stats/*", f"{abroad}/stats/*"]
    role = statements(root, "aws_iam_role_policy.metric_submit")
    assert [one for one in role if "others" not in str(one["Resource"])] == normalised(
        [
            allow("s3:GetObject s3:GetObjectVersion", *keys),
            allow("s3:ListBucket", data, logs, direct, abroad),
            allow("kms:Decrypt", KMS_KEY),
        ]
    )
    send = "sqs:SendMessage"
    assert statements(root, "aws_sqs_queue_policy.stats") == normalised(
        [
            refuse_plain_http("sqs:*", stats),
            allow_service("s3.amazonaws.com", send, stats, direct),
            allow_service("s3.amazonaws.com", send, stats, abroad, OTHER_ACCOUNT),
            allow_service("events.amazonaws.com", send, stats, rule, ""),
            allow_service("sns.amazonaws.com", send, stats, topic, ""),
        ]
    )
    assert statements(root, "aws_sqs_queue_policy.dead_letter") == normalised(
        [
            refuse_plain_http("sqs:*", dead_letter),
            allow_service("events.amazonaws.com", send, dead_letter, rule, ""),
        ]
    )


def statements(root: Root, address: str) -> Any:
    values = root.resources()[address]
    text = values.get("policy") or values["assume_role_policy"]
    return normalised(json.loads(text)["Statement"])


def test_only_this_stack_s_alarms_publish(stack: Root) -> None:
    """By name, and jobs' alarms by prefix."""
    names = (name.partition("nightly")[0] for name in stack.outputs()["alarm_names"])
    alarms = [f"{ALARMS}:{name}{'*' * name.endswith('-')}" for name in names]
    publish = allow_service("cloudwatch.amazonaws.com", "sns:Publish", TOPIC, alarms)
    assert statements(stack, "aws_sns_topic_policy.alarms") == normalised(
        [refuse_plain_http("sns:Publish", TOPIC), publish]
    )


def test_job_may_only_write_below_the_prefix(stack: Root) -> None:
    """By the output for a job's role; and no AWS-managed policy is attached anywhere."""
    policy = json.loads(stack.outputs()["producer_policy_json"])
    assert normalised(policy["Statement"]) == allow("s3:PutObject", f"{BUCKET}/stats/*")
    assert not any("attachment" in address for address in stack.resources())


def test_company_s_settings(cloud: Cloud, new_stack: Callable[..., Root]) -> None:
    """Roles with a path and a boundary, a VPC and one key; files are still submitted."""
    ec2, iam = cloud.client("ec2"), cloud.client("iam")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="a", Description="a", VpcId=vpc)["GroupId"]
    key = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    everything = json.dumps({"Version": "2012-10-17", "Statement": allow("*", "*")})
    boundary = iam.create_policy(PolicyName="boundary", PolicyDocument=everything)["Policy"]["Arn"]
    root = new_stack(
        name="company",
        permissions_boundary_arn=boundary,
        iam_role_path="/teams/data/",
        subnet_ids=[subnet],
        security_group_ids=[group],
        kms_key_arn=key,
    )
    root.apply()
    assert root.changes() == {}
    with DatadogServer("X") as datadog:
        generate(cloud, root)
        submit_waiting(cloud, root, datadog)
    assert len(datadog.points) == 2

    for function, use in (
        ("metric_submit", "kms:Decrypt kms:GenerateDataKey"),
        ("mock_datasource[0]", "kms:GenerateDataKey"),
    ):
        made = statements(root, f"aws_iam_role_policy.{function}")
        demanded = [one for one in made if one["Resource"] in (key, "*")]
        assert demanded == normalised([allow(VPC, "*"), allow(use, key)])
        role = root.resources()[f"aws_iam_role.{function}"]
        assert (role["path"], role["permissions_boundary"]) == ("/teams/data/", boundary)
        vpc_config = root.resources()[f"aws_lambda_function.{function}"]["vpc_config"][0]
        assert (vpc_config["subnet_ids"], vpc_config["security_group_ids"]) == ([subnet], [group])
    encrypted = {
        address.partition(".")[2]
        for address, values in root.resources().items()
        if key in (values.get("kms_master_key_id"), values.get("kms_key_id"))
    }
    logs = {"metric_submit", "mock_datasource[0]"}
    assert encrypted == {"stats", "dead_letter", "rejected", "alarms", *logs}
    bucket = cloud.client("s3").get_bucket_encryption(Bucket=root.outputs()["bucket"])
    [rule] = bucket["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == key
    policy = json.loads(root.outputs()["producer_policy_json"])["Statement"]
    assert allow("kms:GenerateDataKey kms:Decrypt", key) in normalised(policy)


def test_submitter_may_read_its_secret(cloud: Cloud, new_stack: Callable[..., Root]) -> None:
    """With the default KMS key, and with one of your own. The key doesn't get into the log."""
    secrets = cloud.client("secretsmanager")
    secret = secrets.create_secret(Name="datadog", SecretString=f'{{"api_key": "{API_KEY}"}}')
    root = new_stack(name="keyless", ddg_api_key_secret_arn=secret["ARN"])
    root.unset_keys()
    root.apply()
    with DatadogServer(API_KEY) as datadog:
        generate(cloud, root)
        printed = submit_waiting(cloud, root, datadog)
    assert len(datadog.points) == 2
    assert API_KEY not in "".join(printed)

    read = allow("secretsmanager:GetSecretValue", secret["ARN"])
    for kms_key, allowed in ((None, [read]), (KMS_KEY, [allow("kms:Decrypt", KMS_KEY), read])):
        root.configure(ddg_api_key_kms_key_arn=kms_key)
        root.apply()
        role = statements(root, "aws_iam_role_policy.metric_submit")
        assert [one for one in role if "keyless" not in one["Resource"]] == allowed
