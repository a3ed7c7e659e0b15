"""Who may do what: the policies' text as Terraform made it, and moto enforcing it.

moto enforces no conditions, and no policies of buckets, queues and topics. What depends on those is
tested on the documents alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from tests.terraform.cloud import ACCOUNT, REGION, Cloud
from tests.terraform.flow import MadeFunction
from tests.terraform.root import Root

BUCKET = f"arn:aws:s3:::ddg-stats-{ACCOUNT}-{REGION}"
QUEUES = f"arn:aws:sqs:{REGION}:{ACCOUNT}:ddg-stats"
LOG = "/aws/lambda/ddg-stats"
LOGS = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{LOG}"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:ddg-stats-alarms"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:datadog-AbCdEf"
KMS_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"


class Statement(NamedTuple):
    """A statement of a policy, with what is one or a list in JSON sorted into tuples."""

    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    principal: str = ""
    condition: str = ""


def allow(actions: str, *resources: str, principal: str = "", condition: str = "") -> Statement:
    """Return a statement that allows the actions, given with spaces between."""
    return Statement("Allow", tuple(sorted(actions.split())), resources, principal, condition)


def refuse_plain_http(actions: str, *resources: str) -> Statement:
    """Return the statement that makes a resource speak TLS only."""
    condition = '{"Bool": {"aws:SecureTransport": "false"}}'
    return Statement("Deny", (actions,), resources, '"*"', condition)


def read_policy(text: str) -> set[Statement]:
    """Return a policy's statements."""
    return {
        Statement(
            statement["Effect"],
            sorted_tuple(statement["Action"]),
            sorted_tuple(statement["Resource"]),
            json.dumps(statement["Principal"]) if "Principal" in statement else "",
            json.dumps(statement["Condition"], sort_keys=True) if "Condition" in statement else "",
        )
        for statement in json.loads(text)["Statement"]
    }


def sorted_tuple(one_or_many: str | list[str]) -> tuple[str, ...]:
    """Return a list of strings, or the only one, as a tuple."""
    return (one_or_many,) if isinstance(one_or_many, str) else tuple(sorted(one_or_many))


SUBMITTER = {
    allow("sqs:ReceiveMessage sqs:DeleteMessage sqs:GetQueueAttributes", f"{QUEUES}-stats"),
    allow("s3:GetObject", f"{BUCKET}/stats/*"),
    allow("s3:ListBucket", BUCKET),
    allow("sqs:SendMessage", f"{QUEUES}-rejected"),
    allow("logs:CreateLogStream logs:PutLogEvents", f"{LOGS}-metric-submit:*"),
}
GENERATOR = {
    allow("s3:PutObject", f"{BUCKET}/stats/mock-datasource/*"),
    allow("logs:CreateLogStream logs:PutLogEvents", f"{LOGS}-mock-datasource:*"),
}
BUCKET_NOTIFIES = allow(
    "sqs:SendMessage",
    f"{QUEUES}-stats",
    principal='{"Service": "s3.amazonaws.com"}',
    condition=json.dumps(
        {
            "ArnEquals": {"aws:SourceArn": BUCKET},
            "StringEquals": {"aws:SourceAccount": ACCOUNT},
        }
    ),
)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        pytest.param("aws_iam_role_policy.metric_submit", SUBMITTER, id="submitter"),
        pytest.param("aws_iam_role_policy.mock_datasource[0]", GENERATOR, id="generator"),
        pytest.param(
            "aws_s3_bucket_policy.stats",
            {refuse_plain_http("s3:*", BUCKET, f"{BUCKET}/*")},
            id="bucket",
        ),
        pytest.param(
            "aws_sqs_queue_policy.stats",
            {BUCKET_NOTIFIES, refuse_plain_http("sqs:*", f"{QUEUES}-stats")},
            id="main queue",
        ),
        pytest.param(
            "aws_sqs_queue_policy.dead_letter",
            {refuse_plain_http("sqs:*", f"{QUEUES}-dead-letter")},
            id="dead-letter queue",
        ),
        pytest.param(
            "aws_sqs_queue_policy.rejected",
            {refuse_plain_http("sqs:*", f"{QUEUES}-rejected")},
            id="rejected queue",
        ),
    ],
)
def test_policy_says_exactly(stack: Root, address: str, expected: set[Statement]) -> None:
    """Each policy allows what is listed, on what is listed, and nothing else."""
    assert read_policy(stack.resources()[address]["policy"]) == expected


def test_alarms_alone_publish(stack: Root) -> None:
    """The topic takes messages from this stack's alarms, each by name, over TLS."""
    alarms = sorted(
        f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{name}"
        for name in stack.outputs()["alarm_names"]
    )
    [publish] = read_policy(stack.resources()["aws_sns_topic_policy.alarms"]["policy"]) - {
        refuse_plain_http("sns:Publish", TOPIC)
    }
    condition = json.loads(publish.condition)
    assert sorted(condition["ArnEquals"].pop("aws:SourceArn")) == alarms
    assert condition == {"ArnEquals": {}, "StringEquals": {"aws:SourceAccount": ACCOUNT}}
    assert publish == allow(
        "sns:Publish",
        TOPIC,
        principal='{"Service": "cloudwatch.amazonaws.com"}',
        condition=publish.condition,
    )


@pytest.mark.parametrize(
    ("kms_key", "more"),
    [
        pytest.param(
            {}, {allow("secretsmanager:GetSecretValue", SECRET)}, id="AWS-managed key of the secret"
        ),
        pytest.param(
            {"ddg_api_key_kms_key_arn": KMS_KEY},
            {allow("secretsmanager:GetSecretValue", SECRET), allow("kms:Decrypt", KMS_KEY)},
            id="KMS key of one's own",
        ),
    ],
)
def test_secret_in_place_of_the_keys(
    new_stack: Callable[..., Root], kms_key: Mapping[str, str], more: set[Statement]
) -> None:
    """The submitter may read that secret, and its environment says where it is."""
    root = new_stack(name="secret", ddg_api_key_secret_arn=SECRET, **kms_key)
    root.apply()
    policy = read_policy(root.resources()["aws_iam_role_policy.metric_submit"]["policy"])
    assert {
        one for one in policy if one.actions[0].split(":")[0] in ("secretsmanager", "kms")
    } == more
    [environment] = root.resources()["aws_lambda_function.metric_submit"]["environment"]
    assert environment["variables"]["DATADOG_API_KEY_SECRET_ARN"] == SECRET
    assert "DATADOG_API_KEY" not in environment["variables"]
    root.destroy()


@pytest.mark.parametrize("function", ["metric_submit", "mock_datasource[0]"])
def test_lambda_alone_takes_the_role(stack: Root, function: str) -> None:
    """Nobody but Lambda assumes a function's role, and no policy of AWS's own is attached to it."""
    role = stack.resources()[f"aws_iam_role.{function}"]
    [statement] = json.loads(role["assume_role_policy"])["Statement"]
    assert statement["Action"] == "sts:AssumeRole"
    assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}
    assert not any("attachment" in address for address in stack.resources())


# ---------------------------------------------------------------------------------------
# moto enforcing the roles' policies
# ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled_stack(cloud: Cloud, stack: Root) -> Iterator[Root]:
    """The stack with a few files and messages, and a bucket of somebody else beside it."""
    s3, sqs = cloud.client("s3"), cloud.client("sqs")
    s3.create_bucket(Bucket="other-bucket")
    for key in ("stats/job/1.json", "stats/mock-datasource/1.json", "other/1.json"):
        s3.put_object(Bucket=stack.outputs()["bucket"], Key=key, Body=b"{}")
    s3.put_object(Bucket="other-bucket", Key="stats/1.json", Body=b"{}")
    for url in stack.outputs()["queue_urls"].values():
        sqs.send_message(QueueUrl=url, MessageBody="{}")
    yield stack
    s3.delete_object(Bucket="other-bucket", Key="stats/1.json")
    s3.delete_bucket(Bucket="other-bucket")


@pytest.fixture(scope="module")
def roles(cloud: Cloud, filled_stack: Root) -> dict[str, dict[str, str]]:
    """Credentials of the two functions, and of a job with the policy that the stack hands out."""
    iam = cloud.client("iam")
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    job = iam.create_role(RoleName="job", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    policy = filled_stack.outputs()["producer_policy_json"]
    iam.put_role_policy(RoleName="job", PolicyName="job", PolicyDocument=policy)
    names = filled_stack.outputs()["function_names"]
    return {
        "submitter": cloud.assume(MadeFunction(cloud, filled_stack, names["metric_submit"]).role),
        "generator": cloud.assume(MadeFunction(cloud, filled_stack, names["mock_datasource"]).role),
        "job": cloud.assume(job),
    }


ALLOWED = [
    ("submitter", "s3 get_object Bucket=bucket Key=stats/job/1.json"),
    ("submitter", "s3 list_objects_v2 Bucket=bucket"),
    ("submitter", "sqs receive_message QueueUrl=stats"),
    ("submitter", "sqs get_queue_attributes QueueUrl=stats"),
    ("submitter", "sqs send_message QueueUrl=rejected MessageBody={}"),
    ("submitter", f"logs create_log_stream logGroupName={LOG}-metric-submit logStreamName=1"),
    ("generator", "s3 put_object Bucket=bucket Key=stats/mock-datasource/2.json"),
    ("generator", f"logs create_log_stream logGroupName={LOG}-mock-datasource logStreamName=1"),
    ("job", "s3 put_object Bucket=bucket Key=stats/job/2.json"),
]
DENIED = [
    ("submitter", "s3 get_object Bucket=bucket Key=other/1.json"),
    ("submitter", "s3 get_object Bucket=other-bucket Key=stats/1.json"),
    ("submitter", "s3 list_objects_v2 Bucket=other-bucket"),
    ("submitter", "s3 list_buckets"),
    ("submitter", "s3 put_object Bucket=bucket Key=stats/job/3.json"),
    ("submitter", "s3 delete_object Bucket=bucket Key=stats/job/1.json"),
    ("submitter", "s3 delete_bucket Bucket=bucket"),
    ("submitter", "sqs send_message QueueUrl=stats MessageBody={}"),
    ("submitter", "sqs send_message QueueUrl=dead_letter MessageBody={}"),
    ("submitter", "sqs receive_message QueueUrl=rejected"),
    ("submitter", "sqs receive_message QueueUrl=dead_letter"),
    ("submitter", "sqs purge_queue QueueUrl=stats"),
    ("submitter", "sqs delete_queue QueueUrl=rejected"),
    ("submitter", f"logs create_log_group logGroupName={LOG}-metric-submit"),
    ("submitter", f"logs create_log_stream logGroupName={LOG}-mock-datasource logStreamName=2"),
    ("submitter", f"logs delete_log_group logGroupName={LOG}-metric-submit"),
    ("submitter", f"secretsmanager get_secret_value SecretId={SECRET}"),
    ("submitter", "lambda list_functions"),
    ("submitter", "iam list_roles"),
    ("generator", "s3 put_object Bucket=bucket Key=stats/job/3.json"),
    ("generator", "s3 put_object Bucket=bucket Key=other/3.json"),
    ("generator", "s3 put_object Bucket=other-bucket Key=stats/mock-datasource/3.json"),
    ("generator", "s3 get_object Bucket=bucket Key=stats/mock-datasource/1.json"),
    ("generator", "s3 list_objects_v2 Bucket=bucket"),
    ("generator", "s3 delete_object Bucket=bucket Key=stats/mock-datasource/1.json"),
    ("generator", "sqs send_message QueueUrl=stats MessageBody={}"),
    ("generator", "sqs receive_message QueueUrl=stats"),
    ("generator", f"logs create_log_group logGroupName={LOG}-mock-datasource"),
    ("generator", f"logs create_log_stream logGroupName={LOG}-metric-submit logStreamName=2"),
    ("job", "s3 put_object Bucket=bucket Key=other/3.json"),
    ("job", "s3 get_object Bucket=bucket Key=stats/job/1.json"),
    ("job", "s3 list_objects_v2 Bucket=bucket"),
    ("job", "s3 delete_object Bucket=bucket Key=stats/job/1.json"),
    ("job", "sqs send_message QueueUrl=stats MessageBody={}"),
]


def call(cloud: Cloud, root: Root, credentials: Mapping[str, str], written: str) -> Any:
    """Make a call that is written `service operation Name=value ...`, with IAM enforced."""
    service, operation, *given = written.split()
    outputs = root.outputs()
    meant = {"bucket": outputs["bucket"], **outputs["queue_urls"]}
    parameters = dict(one.split("=", 1) for one in given)
    parameters = {name: meant.get(value, value) for name, value in parameters.items()}
    client = cloud.client(service, credentials)
    with cloud.enforcing_iam():
        return getattr(client, operation)(**parameters)


@pytest.mark.parametrize(("role", "written"), ALLOWED, ids=lambda value: value)
def test_role_may(
    cloud: Cloud, filled_stack: Root, roles: Mapping[str, Any], role: str, written: str
) -> None:
    """What a function or a job has to do passes."""
    call(cloud, filled_stack, roles[role], written)


@pytest.mark.parametrize(("role", "written"), DENIED, ids=lambda value: value)
def test_role_may_not(
    cloud: Cloud, filled_stack: Root, roles: Mapping[str, Any], role: str, written: str
) -> None:
    """What stands next to it is denied."""
    with pytest.raises(ClientError) as denied:
        call(cloud, filled_stack, roles[role], written)
    assert denied.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
