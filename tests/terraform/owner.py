"""The owner of buckets that exist before the stack, and the commands that the owner types."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.terraform.cloud import ACCOUNT, REGION, Cloud
from tests.terraform.root import AWS, own_environment

TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:acme-uploads"
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:acme-uploads"
BUCKETS = {
    "acme-data": {"prefix": "etl/daily stats/"},
    "acme-archive": {"prefix": "", "topic_arn": TOPIC},
    "acme-direct": {"notify": "s3"},
}
EVENTS = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
CONFIGURED = {  # before the stack
    "acme-data": {"QueueConfigurations": [{"QueueArn": QUEUE, "Events": EVENTS}]},
    "acme-archive": {"TopicConfigurations": [{"TopicArn": TOPIC, "Events": EVENTS}]},
}

# As much of the `aws` command as the owner needs; without a configuration it prints nothing.
AWS_COMMAND = f"""#!{sys.executable}
import json, sys, boto3
_, operation, *words = sys.argv[1:]
given = {{word[2:].title().replace("-", ""): value for word, value in zip(words[::2], words[1::2])}}
client = boto3.client("s3", region_name=given.pop("Region"))
given.pop("Output", None)
if "NotificationConfiguration" in given:
    given["NotificationConfiguration"] = json.loads(given["NotificationConfiguration"])
answer = getattr(client, operation.replace("-", "_"))(**given)
del answer["ResponseMetadata"]
print(json.dumps(answer) if answer else "")
"""


class Owner:
    """Makes three buckets, what they notify, and the `aws` command in a folder."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        (folder / "aws").write_text(AWS_COMMAND)
        (folder / "aws").chmod(0o755)
        self._environment = own_environment(AWS_ENDPOINT_URL=cloud.url, **AWS)
        self._environment["PATH"] = f"{folder}:{self._environment['PATH']}"
        self._cloud, self.s3 = cloud, cloud.client("s3")
        cloud.client("sns").create_topic(Name="acme-uploads")
        cloud.client("sqs").create_queue(QueueName="acme-uploads")
        for bucket in BUCKETS:
            self.s3.create_bucket(Bucket=bucket)
            self.s3.put_bucket_notification_configuration(
                Bucket=bucket, NotificationConfiguration=CONFIGURED.get(bucket, {})
            )

    def configured(self) -> dict[str, Any]:
        """Return what each bucket notifies, the topic's policy, and its subscriptions."""
        sns = self._cloud.client("sns")
        notify = self.s3.get_bucket_notification_configuration
        return {
            bucket: notify(Bucket=bucket) | {"ResponseMetadata": None} for bucket in BUCKETS
        } | {
            "policy": sns.get_topic_attributes(TopicArn=TOPIC)["Attributes"]["Policy"],
            "subscribers": sns.list_subscriptions_by_topic(TopicArn=TOPIC)["Subscriptions"],
        }

    def type(self, commands: Iterable[str]) -> None:
        """Run commands in a shell."""
        for command in commands:
            subprocess.run(["sh", "-euc", command], env=self._environment, check=True)
