"""The stack as a module, called as docs/settings.md does."""

import re
from collections.abc import Callable

from tests.terraform.cloud import Cloud
from tests.terraform.root import Root, Step

DEFAULT_TAGS = {"owner": "platform"}
JOB = 'resource "terraform_data" "job" { input = module.ddg_stats["test"].bucket }'  # may write now
JOB_STARTS = Step("start", "create", "terraform_data.job")


def test_two_environments_in_one_state(cloud: Cloud, new_caller: Callable[[], Root]) -> None:
    """They apply, have no changes, share nothing; one goes with its files, then the other."""
    before = cloud.names()
    root = new_caller()
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
