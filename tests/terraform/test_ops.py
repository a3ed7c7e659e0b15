"""ddg-ops on a stack that Terraform made."""

import json

import pytest

from ddg_ops.stack import find_stack
from local.datadog_server import DatadogServer
from tests.operated import run
from tests.terraform.cloud import REGION, Cloud
from tests.terraform.root import Root


def test_stack_is_found_and_healthy(
    cloud: Cloud, stack: Root, datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`terraform output` and the name lead to the same resources, and check finds no fault."""
    monkeypatch.chdir(stack.folder)
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
    by_terraform = find_stack(None, None, None)
    by_name = find_stack("ddg-stats", None, REGION)
    assert by_terraform == by_name._replace(
        aws=by_terraform.aws,
        source=by_terraform.source,
        alarm_names=tuple(sorted(by_name.alarm_names)),
    )
    by_name.prove()

    function = {"FunctionName": by_terraform.function}
    environment = by_terraform.environment()
    changed = environment | {"DATADOG_HOST": datadog.url, "DATADOG_API_KEY": "test-key"}
    functions = cloud.client("lambda")
    functions.update_function_configuration(**function, Environment={"Variables": changed})
    result = run("check", "--json")
    functions.update_function_configuration(**function, Environment={"Variables": environment})
    findings = json.loads(result.out)["findings"]
    states = {each["part"]: each["state"] for each in findings if each["state"] != "ok"}
    # There is no subscription, and the new generator hasn't written yet.
    assert (result.code, states) == (3, {"outcomes": "unknown", "alarms": "note"})
