"""ddg_ops.py on a stack that Terraform made: it finds it both ways, and finds it well."""

import boto3
import pytest

import ddg_ops
import ddg_ops_stack
from local.datadog_server import DatadogServer
from tests.terraform.cloud import REGION, Cloud
from tests.terraform.root import Root


def test_stack_is_found_and_well(
    cloud: Cloud,
    stack: Root,
    datadog: DatadogServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`terraform output` and the name alone lead to the same parts, and check finds no fault."""
    monkeypatch.chdir(stack.folder)
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    by_terraform = ddg_ops_stack.find_stack(None, None, None)
    by_name = ddg_ops_stack.find_stack("ddg-stats", None, REGION)
    assert by_name._replace(alarm_names=tuple(sorted(by_name.alarm_names))) == by_terraform

    function = {"FunctionName": by_terraform.function}
    environment = ddg_ops_stack.function_environment(by_terraform.function)
    changed = environment | {"DATADOG_HOST": datadog.url, "DATADOG_API_KEY": "test-key"}
    functions = cloud.client("lambda")
    functions.update_function_configuration(**function, Environment={"Variables": changed})
    code = ddg_ops.main(["check"])
    functions.update_function_configuration(**function, Environment={"Variables": environment})
    out = capsys.readouterr().out
    assert code == 0, out
    assert "nobody hears them" in out  # no alarm_email
