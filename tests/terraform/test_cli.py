"""What a person with the terraform command meets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.terraform.cloud import ACCOUNT, Cloud
from tests.terraform.root import KEYS, Root, copy_dashboard

API_KEY = "0123456789abcdef0123456789abcdef"


def put(cloud: Cloud, root: Root, key: str) -> None:
    """Leave a file in the stack's bucket."""
    cloud.client("s3").put_object(Bucket=root.outputs()["bucket"], Key=key, Body=b"{}")


def test_variables_and_numbers(new_stack: Callable[..., Root]) -> None:
    """`terraform test`: tests/*.tftest.hcl, with a mocked provider."""
    assert "0 failed" in new_stack().run("test")


def test_apply_without_a_key_says_what_to_give(new_stack: Callable[..., Root]) -> None:
    """The keys have no default that would deploy a stack that can't submit."""
    printed = new_stack(name="keyless").apply(code=1)
    assert "Give the keys (apply -var 'ddg_api_key=...' -var 'ddg_app_key=...')" in printed


@pytest.mark.parametrize("zip_file", ["ddg_metric_submit.zip", "ddg_mock_datasource.zip"])
def test_apply_without_a_zip_says_how_to_make_it(
    new_stack: Callable[..., Root], zip_file: str
) -> None:
    """A clone has no zips yet; validate doesn't mind, apply says what to do."""
    root = new_stack(name="zipless", **KEYS)
    (root.folder / zip_file).unlink()
    root.run("validate")
    assert f"{zip_file} is missing: run ./zipper.sh" in root.apply(code=1)


def test_keys_are_never_shown(new_stack: Callable[..., Root]) -> None:
    """The keys are hidden in what is printed, and nothing else is."""
    root = new_stack(name="hidden", ddg_api_key=API_KEY, ddg_app_key=API_KEY.upper())
    printed = root.plan() + root.apply() + root.run("output")
    assert API_KEY not in printed
    assert API_KEY.upper() not in printed
    assert '"DATADOG_HOST"       = "https://api.datadoghq.com"' in printed
    assert '"DATADOG_API_KEY"    = (sensitive value)' in printed


def test_two_stacks_stand_side_by_side(cloud: Cloud, new_stack: Callable[..., Root]) -> None:
    """One is destroyed with its keys and with files in its bucket; the other doesn't notice."""
    one, other = new_stack(name="one", **KEYS), new_stack(name="other", **KEYS)
    one.apply()
    before = cloud.names()
    other.apply(alarm_email="oncall@example.com", mock_datasource_enabled=False)
    assert not before & (cloud.names() - before)
    put(cloud, other, "left.json")
    other.destroy(**KEYS)
    assert cloud.names() == before
    assert one.changes() == {}


def test_another_region(new_stack: Callable[..., Root]) -> None:
    """The bucket's name and the commands follow the region."""
    root = new_stack(name="abroad", aws_region="eu-central-1", **KEYS)
    root.apply()
    outputs = root.outputs()
    assert outputs["bucket"] == f"abroad-{ACCOUNT}-eu-central-1"
    assert "--region eu-central-1" in outputs["upload_command"]
    assert ":eu-central-1:" in outputs["alarm_topic_arn"]


def test_bucket_that_is_to_be_kept(cloud: Cloud, new_stack: Callable[..., Root]) -> None:
    """With force_destroy = false destroy leaves the bucket and its files, with true nothing."""
    before = cloud.names()
    root = new_stack(name="kept", force_destroy=False, **KEYS)
    root.apply()
    bucket = root.outputs()["bucket"]
    put(cloud, root, "kept.json")
    root.run("destroy", "-auto-approve", code=1)
    assert cloud.names() - before == {bucket}
    root.apply(force_destroy=True)
    root.destroy()
    assert cloud.names() == before


def test_dashboard(tmp_path: Path) -> None:
    """The dashboard's root is valid, applies, has no changes and goes; its own tests pass."""
    root = copy_dashboard(tmp_path, ddg_api_key="X", ddg_app_key="X", health_widgets=True)
    root.run("validate")
    assert "0 failed" in root.run("test")
    root.apply()
    assert root.changes() == {}
    root.destroy(**KEYS)
