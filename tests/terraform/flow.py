"""The functions that Terraform made, with their roles, environments and zips, run locally."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from local.datadog_server import DatadogServer
from local.event_source import EventSource
from local.lambda_runtime import LambdaFunction
from tests.terraform.cloud import Cloud
from tests.terraform.root import Root


class MadeFunction:
    """A function in moto's Lambda; its zip must be the one that Terraform uploaded."""

    def __init__(self, cloud: Cloud, root: Root, name: str) -> None:
        self._cloud = cloud
        found = cloud.client("lambda").get_function_configuration(FunctionName=name)
        self.configuration: Mapping[str, Any] = found
        self.environment: Mapping[str, str] = found["Environment"]["Variables"]
        self.role: str = found["Role"]
        self._zip = root.folder / f"{found['Handler'].partition('.')[0]}.zip"
        digest = hashlib.sha256(self._zip.read_bytes()).digest()
        assert base64.b64encode(digest).decode() == found["CodeSha256"]

    def running(self, **replaced: str) -> LambdaFunction:
        """Return it as a local function with its role, and some variables replaced."""
        credentials = self._cloud.assume(self.role)
        return LambdaFunction(
            self._zip,
            self.configuration["Handler"],
            {**self.environment, "AWS_ENDPOINT_URL": self._cloud.url, **replaced}
            | {
                "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
                "AWS_SESSION_TOKEN": credentials["SessionToken"],
            },
            name=self.configuration["FunctionName"],
            timeout=self.configuration["Timeout"],
        )


def submit_waiting(cloud: Cloud, root: Root, datadog: DatadogServer) -> list[str]:
    """Let the submitter take all waiting messages, by its role; return its log."""
    outputs = root.outputs()
    made = MadeFunction(cloud, root, outputs["function_names"]["metric_submit"])
    queue = cloud.client("sqs", cloud.assume(made.role))  # Lambda polls as the function's role
    with made.running(DATADOG_HOST=datadog.url) as submitter, cloud.enforcing_iam():
        source = EventSource(queue, outputs["queue_urls"]["stats"], submitter.invoke)
        while (batch := source.poll()) is not None:
            assert batch.failed == 0, submitter.log
    return submitter.log


def generate(cloud: Cloud, root: Root) -> list[str]:
    """Let the generator or the heartbeat write a file, by its role; return the keys."""
    names = root.outputs()["function_names"]
    made = MadeFunction(cloud, root, names["mock_datasource"] or names["heartbeat"])
    with made.running() as generator, cloud.enforcing_iam():
        answer: Any = generator.invoke({})
    keys: list[str] = answer["keys"]
    return keys
