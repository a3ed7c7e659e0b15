"""The examples: the stack as a module."""

import re
from collections.abc import Callable

import pytest

from tests.terraform.cloud import Cloud
from tests.terraform.root import Root, Step

API_KEY = "0123456789abcdef0123456789abcdef"

DEFAULT_TAGS = {"owner": "platform"}
JOB = 'resource "terraform_data" "job" { input = module.ddg_stats["test"].bucket }'  # may write now
JOB_STARTS = Step("start", "create", "terraform_data.job")


@pytest.mark.parametrize(
    ("name", "key_in_state"), [("basic", True), ("own-bucket", True), ("secret", False)]
)
def test_example(
    cloud: Cloud, new_example: Callable[[str], Root], name: str, key_in_state: bool
) -> None:
    """It applies, then plans no changes, and destroy needs no key and leaves nothing."""
    before = cloud.names()
    root = new_example(name)
    root.apply(TF_VAR_ddg_api_key=API_KEY)
    root.unset_keys()
    root.environment |= {} if name == "secret" else {"TF_VAR_ddg_api_key": API_KEY}
    assert root.changes() == {}
    assert (API_KEY in (root.folder / "terraform.tfstate").read_text()) == key_in_state
    root.unset_keys()
    root.destroy()
    assert cloud.names() == before


def test_two_environments_in_one_state(cloud: Cloud, new_example: Callable[[str], Root]) -> None:
    """They share nothing; each can be removed alone, with its files."""
    before = cloud.names()
    root = new_example("two-environments")
    (root.folder / "job.tf").write_text(JOB)
    steps = root.steps("apply")
    notified = 'module.ddg_stats["test"].aws_s3_bucket_notification.stats[0]'
    assert steps.index(Step("complete", "create", notified)) < steps.index(JOB_STARTS)
    assert root.changes() == {}

    parts: dict[str, set[str]] = {}
    for environment in ("test", "prod"):
        address = f'module.ddg_stats["{environment}"].'
        resources = {k: v for k, v in root.resources().items() if k.startswith(address)}
        parts[environment] = set(resources)
        tags = DEFAULT_TAGS | {"environment": environment}
        assert {k for k, v in resources.items() if v.get("tags_all", tags) != tags} == set()
    ours = re.compile("ddg-stats-(test|prod)")
    others = [name for name in cloud.names() - before if not ours.search(name)]
    assert len(others) == 2, others  # an event source mapping has no name but a number

    bucket = root.outputs()["buckets"]["prod"]
    cloud.client("s3").put_object(Bucket=bucket, Key="stats/left.json", Body=b"{}")
    caller = root.folder / "main.tf"
    caller.write_text(caller.read_text().replace('["test", "prod"]', '["test"]'))
    assert root.changes() == {"delete": parts["prod"]}
    root.apply()
    assert not any("ddg-stats-prod" in name for name in cloud.names())
    assert root.changes() == {}

    root.destroy()
    assert cloud.names() == before
