"""What a user of the terraform command sees."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from tests.terraform.cloud import ACCOUNT, Cloud
from tests.terraform.root import PROJECT, SETTINGS, Root, copy_files, new_root

API_KEY = "0123456789abcdef0123456789abcdef"


def test_numbers_and_names(new_stack: Callable[..., Root]) -> None:
    """tests/*.tftest.hcl, with a mocked provider."""
    assert "0 failed" in new_stack().run("test")


def test_quick_try(cloud: Cloud, new_stack: Callable[..., Root]) -> None:
    """As in the README: keys only on the command line, and none to destroy."""
    before = cloud.names()
    root = new_stack(name="quick")
    root.unset_keys()
    printed = root.apply(code=1)
    assert "Give ddg_api_key (export TF_VAR_ddg_api_key=..., or apply -var" in printed
    keys = ("-var", f"ddg_api_key={API_KEY}", "-var", f"ddg_app_key={API_KEY.upper()}")
    printed = root.run("apply", "-auto-approve", *keys) + root.run("output")
    assert API_KEY not in printed
    assert API_KEY.upper() not in printed
    assert '"DATADOG_HOST"       = "https://api.datadoghq.com"' in printed
    assert '"DATADOG_API_KEY"    = (sensitive value)' in printed
    root.destroy()
    assert cloud.names() == before


def test_plan_without_zips_says_how_to_make_them(new_stack: Callable[..., Root]) -> None:
    """Or finds them in another folder."""
    root = new_stack(name="zipless")
    elsewhere = root.folder.with_name(f"{root.folder.name} of mine")
    copy_files(root.folder, elsewhere, "*.zip")
    for zip_file in root.folder.glob("*.zip"):
        zip_file.unlink()
    printed = root.plan(code=1)
    assert "./ddg_metric_submit.zip is missing: run ./zipper.sh" in printed
    root.configure(zip_folder=str(elsewhere))
    root.plan()


def test_another_region(cloud: Cloud, new_stack: Callable[..., Root]) -> None:
    """The provider decides on the region; aws_region guards against the wrong one."""
    root = new_stack(name="abroad")
    root.environment["AWS_REGION"] = "eu-central-1"
    root.apply()
    outputs = root.outputs()
    assert outputs["bucket"] == f"abroad-{ACCOUNT}-eu-central-1"
    assert "--region eu-central-1" in outputs["upload_command"]
    assert ":eu-central-1:" in outputs["alarm_topic_arn"]

    root.configure(aws_region="eu-central-1")
    assert root.changes() == {}
    state = root.state()
    for command in (["plan"], ["apply", "-auto-approve"], ["destroy", "-auto-approve"]):
        printed = root.run(*command, code=1, AWS_REGION="us-east-1")
        assert "aws_region is eu-central-1, but the AWS provider works in us-east-1." in printed
    assert root.state() == state


def test_bucket_can_be_kept(cloud: Cloud, new_stack: Callable[..., Root]) -> None:
    """With force_destroy = false, destroy leaves a bucket that has files."""
    before = cloud.names()
    root = new_stack(name="kept", force_destroy=False)
    root.apply()
    bucket = root.outputs()["bucket"]
    cloud.client("s3").put_object(Bucket=bucket, Key="kept.json", Body=b"{}")
    assert "BucketNotEmpty" in root.destroy(code=1)
    assert cloud.names() - before == {bucket}
    root.configure(force_destroy=True)
    root.apply()
    root.destroy()
    assert cloud.names() == before


def test_alarms_say_what_to_do(stack: Root) -> None:
    """In the description, and in a section of the docs."""
    alarms = {
        values["alarm_name"].removeprefix("ddg-stats-"): values["alarm_description"]
        for address, values in stack.resources().items()
        if address.startswith("aws_cloudwatch_metric_alarm.")
    }
    assert len(alarms) == 12
    assert [name for name, description in alarms.items() if " First " not in description] == []
    page = (PROJECT / "docs/operations.md").read_text()
    sections = {name.partition("nightly")[0].strip("-") for name in alarms}
    assert set(re.findall(r"^### ([a-z-]+)$", page, re.MULTILINE)) == sections
    assert stack.outputs()["alarm_names"] == sorted(f"ddg-stats-{name}" for name in alarms)


def test_dashboard_in_cloudwatch(stack: Root) -> None:
    """The alarms, then graphs that don't overlap, each with metrics."""
    page = json.loads(stack.resources()["aws_cloudwatch_dashboard.pipeline"]["dashboard_body"])
    alarms, *graphs = page["widgets"]
    assert len(alarms["properties"]["alarms"]) == 12
    assert len({(graph["x"], graph["y"]) for graph in graphs}) == len(graphs) == 9
    metrics = [metric for graph in graphs for metric in graph["properties"]["metrics"]]
    assert {len(metric[:4]) for metric in metrics} == {4}
    delays = [metric[4]["stat"] for metric in metrics if metric[1] == "DelayMilliseconds"]
    assert delays == ["p50", "p95", "p99", "Maximum"]


def test_dashboard_in_datadog(cloud: Cloud, tmp_path: Path) -> None:
    """Its root reads the stack's settings, and plans no changes after apply."""
    folder = copy_files(PROJECT / "dashboard", tmp_path / "dashboard", "*.tf", "tests/*")
    root = new_root(folder, cloud.url)
    root.run("validate")
    assert "0 failed" in root.run("test")
    root.apply()
    (tmp_path / SETTINGS).write_text((folder / "tests/settings.json").read_text())
    root.configure(health_widgets=True, describe_metrics=True)
    root.apply()
    assert root.changes() == {}
    assert len(root.outputs()["monitor_ids"]) == 4
    (tmp_path / SETTINGS).write_text((folder / "tests/wrong.json").read_text())
    assert "../stack.auto.tfvars.json: job nightly: a job" in root.plan(code=1)
    root.destroy()
