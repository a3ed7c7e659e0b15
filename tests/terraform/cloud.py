"""moto instead of AWS, patched where the provider would wait in vain or see drift (moto 5.2)."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
import requests
from moto.awslambda.models import LambdaFunction
from moto.events.models import EventPattern
from moto.iam.access_control import IAMRequest, PermissionResult
from moto.s3.models import FakeBucket
from moto.server import ThreadedMotoServer
from moto.sqs.models import Queue

from tests.events import tell_of_eventbridge

REGION = "us-east-1"  # the local Lambda's
ACCOUNT = "123456789012"  # moto's

ADMINISTRATOR = {"AccessKeyId": "testing", "SecretAccessKey": "testing"}  # moto takes anyone
LOGGING_DEFAULTS = {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}  # with JSON alone


class Cloud:
    """moto's address, and clients for it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self, service: str, credentials: Mapping[str, str] = ADMINISTRATOR) -> Any:
        """Return a client with credentials as STS gives them."""
        session: Any = boto3.Session(
            credentials["AccessKeyId"],
            credentials["SecretAccessKey"],
            credentials.get("SessionToken"),
            region_name=REGION,
        )
        return session.client(service, endpoint_url=self.url)

    def assume(self, role: str) -> dict[str, str]:
        """Return credentials of a role, given by ARN."""
        answer = self.client("sts").assume_role(RoleArn=role, RoleSessionName="test")
        credentials: dict[str, str] = answer["Credentials"]
        return credentials

    @contextmanager
    def enforcing_iam(self) -> Iterator[None]:
        """Let moto check each request by the policies of who signed it, without conditions."""
        headers = {"Content-Type": "application/octet-stream"}
        url = f"{self.url}/moto-api/reset-auth"  # with how many requests it doesn't check
        requests.post(url, b"0", headers=headers, timeout=10).raise_for_status()
        try:
            yield
        finally:
            requests.post(url, b"inf", headers=headers, timeout=10).raise_for_status()

    def names(self) -> set[str]:
        """Return the names of all existing resources of the types that a stack makes."""
        lists = [
            ("s3", "list_buckets", "Buckets", "Name"),
            ("sqs", "list_queues", "QueueUrls", None),
            ("lambda", "list_functions", "Functions", "FunctionName"),
            ("lambda", "list_event_source_mappings", "EventSourceMappings", "UUID"),
            ("iam", "list_roles", "Roles", "RoleName"),
            ("logs", "describe_log_groups", "logGroups", "logGroupName"),
            ("events", "list_rules", "Rules", "Name"),
            ("sns", "list_topics", "Topics", "TopicArn"),
            ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
            ("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
        ]
        return {
            found[name] if name else found
            for service, operation, key, name in lists
            for found in getattr(self.client(service), operation)().get(key, [])
        }


@contextmanager
def start() -> Iterator[Cloud]:
    """Start the patched moto on loopback."""
    if not hasattr(Queue, "redrive_allow_policy"):  # once in a process
        patch_buckets()
        patch_queues()
        patch_rules()
        patch_functions()
        patch_permissions()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Cloud(f"http://{host}:{port}")
    server.stop()


def patch_buckets() -> None:
    """Don't apply a bucket's policy: moto ignores a Deny's Condition. Tell if EventBridge is on."""
    model: Any = FakeBucket
    model.get_permission = lambda *_: PermissionResult.NEUTRAL
    tell_of_eventbridge()


def patch_queues() -> None:
    """Keep a queue's policies, which moto forgets, and its messages.

    moto's own event source mapping would take them, to run the function in Docker.
    """
    model: Any = Queue
    set_attributes, get_attributes = model._set_attributes, model.attributes.fget

    def keep(queue: Any, attributes: Mapping[str, Any], now: float | None = None) -> None:
        changed = {"Policy": getattr(queue, "policy", None), **attributes}
        if "RedriveAllowPolicy" in changed:
            queue.redrive_allow_policy = changed.pop("RedriveAllowPolicy") or None
        set_attributes(queue, changed, now)

    def tell(queue: Any) -> dict[str, Any]:
        attributes: dict[str, Any] = get_attributes(queue)
        if attributes.get("RedrivePolicy"):  # AWS writes it without spaces
            policy = json.loads(attributes["RedrivePolicy"])
            attributes["RedrivePolicy"] = json.dumps(policy, separators=(",", ":"))
        return attributes

    model.lambda_event_source_mappings = property(lambda _: {}, lambda *_: None)
    model.redrive_allow_policy = None
    model.BASE_ATTRIBUTES = [*model.BASE_ATTRIBUTES, "RedriveAllowPolicy"]
    model._set_attributes = keep
    model.attributes = property(tell)


def patch_rules() -> None:
    """Let a schedule match no event: otherwise moto fails, and asks no other rule."""
    model: Any = EventPattern
    matches = model.matches_event
    model.matches_event = lambda rule, event: bool(rule.get_pattern()) and matches(rule, event)


def patch_functions() -> None:
    """Keep a function's LoggingConfig, which moto forgets."""
    model: Any = LambdaFunction
    create, update = model.__init__, model.update_configuration
    configuration = model.get_configuration

    def created(function: Any, *, spec: Mapping[str, Any], **named: Any) -> None:
        create(function, spec=spec, **named)
        function.logging_config = spec.get("LoggingConfig", {})

    def updated(function: Any, spec: Mapping[str, Any]) -> Any:
        function.logging_config = spec.get("LoggingConfig", function.logging_config)
        return update(function, spec)

    def configured(function: Any, *more: Any, **named: Any) -> dict[str, Any]:
        log_group = f"/aws/lambda/{function.function_name}"
        settings = {"LogFormat": "Text", "LogGroup": log_group, **function.logging_config}
        if settings["LogFormat"] == "JSON":
            settings = {**LOGGING_DEFAULTS, **settings}
        return {**configuration(function, *more, **named), "LoggingConfig": settings}

    model.__init__ = created
    model.update_configuration = updated
    model.get_configuration = configured


def patch_permissions() -> None:
    """Check batches by their single action, and a secret by its ARN, as AWS does."""
    model: Any = IAMRequest
    check = model.check_action_permitted

    def check_as_aws(request: Any, resource: str) -> None:
        if request._service == "sqs":  # SQSDeveloperGuide/sqs-api-permissions-reference
            request._action = request._action.removesuffix("Batch")
        elif request._service == "secretsmanager":
            resource = json.loads(request._body).get("SecretId", resource)  # ours are ARNs
        check(request, resource)

    model.check_action_permitted = check_as_aws
