"""A deployed stack: its parts, how to find it, and the submitter's functions for it."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import click
from botocore.exceptions import ClientError

from ddg_metric_submit import read_files
from ddg_ops.aws import APPLY, HOW_TO_NAME, RIGHT_PLACE, Aws, explain, is_missing
from ddg_ops.screen import USAGE, Stop
from ddg_outcomes import Outcome, Statistics, Submitted
from ddg_s3_objects import File
from ddg_series_api import count_points
from ddg_settings import Batch, Settings, read_buckets, read_settings

WINDOW_SECONDS = 3600  # Datadog drops older points without Historical Metrics Ingestion
BATCH_SECONDS = 120.0  # for the files of a batch, on a slow line
STACK_HELP = "A stack's name, or a file from `terraform output -json`."


class Stack(NamedTuple):
    """The parts of a deployed stack, and the session that reaches them."""

    aws: Aws
    source: str  # what names it, for messages
    bucket: str  # the stack's own; "" if it has none
    prefix: str  # in that bucket
    main_url: str
    dead_letter_url: str
    rejected_url: str
    function: str  # the submitter
    generator: str  # the function that writes samples or heartbeats, and its rule; "" if none
    watched: Mapping[str, int]  # job -> silent_after_hours
    alarm_names: tuple[str, ...]
    topic_arn: str  # of the alarms; "" if unknown

    @property
    def account(self) -> str:
        return f"{self.topic_arn}::::".split(":")[4]

    @property
    def log_group(self) -> str:
        return f"/aws/lambda/{self.function}"

    def environment(self) -> dict[str, str]:
        """Return the submitter's environment. It may hold a key: never print it."""
        functions = self.aws.client("lambda")
        configuration = functions.get_function_configuration(FunctionName=self.function)
        environment: dict[str, str] = configuration.get("Environment", {}).get("Variables", {})
        return environment

    def choose_bucket(self, settings: Settings, named: str = "") -> str:
        """Return the named bucket; without a name the stack's own, or its only one.

        Raises Stop if the stack takes no files from it, or if there are several.
        """
        buckets = [bucket for bucket in (self.bucket, *read_buckets(settings.buckets)) if bucket]
        if named in buckets:
            return named
        if not named and (self.bucket or len(buckets) == 1):
            return buckets[0]
        problem = f"takes no files from {named}" if named else "has no bucket of its own"
        raise Stop(f"the stack {problem}. Name one: --bucket {' or '.join(buckets)}.", USAGE)

    def prefix_of(self, bucket: str, settings: Settings) -> str:
        """Return the prefix of a bucket's stats files."""
        return self.prefix if bucket == self.bucket else settings.prefix_of(bucket)

    def queue(self, url: str) -> dict[str, str]:
        """Return all attributes of a queue."""
        sqs = self.aws.client("sqs")
        attributes: dict[str, str]
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        return attributes

    def waiting(self, url: str) -> tuple[str, int]:
        """Return a queue's name and its approximate number of messages, in flight or not."""
        queue = self.queue(url)
        kinds = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return queue_name(url), sum(int(queue[kind]) for kind in kinds)

    def mappings(self, queue_arn: str) -> list[dict[str, Any]]:
        """Return the event source mappings from a queue to the submitter."""
        functions = self.aws.client("lambda")
        answer = functions.list_event_source_mappings(EventSourceArn=queue_arn)  # a page: 100
        found = answer["EventSourceMappings"]
        return [each for each in found if each["FunctionArn"].split(":")[6] == self.function]

    def prove(self) -> None:
        """Raise Stop unless the three queues are the function's own, in this account and region.

        Call it before sending or deleting: an old file of outputs may name another's queues.
        """
        account = self.aws.client("sts").get_caller_identity()["Account"]
        here = f"{self.aws.region}:{account}"
        try:
            urls = (self.main_url, self.dead_letter_url, self.rejected_url)
            queues = [self.queue(url) for url in urls]
            main, dead, rejected = (queue["QueueArn"] for queue in queues)
            rejects_to = self.environment().get("REJECTED_QUEUE_URL", "nothing")
            facts = {
                f"its queues aren't in {here}": all(f":{here}:" in q["QueueArn"] for q in queues),
                f"{main} isn't mapped to {self.function}": self.mappings(main),
                f"{main} doesn't redrive to {dead}": dead in queues[0].get("RedrivePolicy", ""),
                f"{self.function} rejects to {rejects_to}, not to {rejected}": (
                    queue_path(rejects_to) == queue_path(self.rejected_url)
                ),
            }
        except ClientError as error:
            if not is_missing(error):
                raise
            facts = {explain(error).partition(". ")[0]: False}
        for problem in [problem for problem, is_right in facts.items() if not is_right]:
            raise Stop(
                f"nothing was done, because {self.source} doesn't describe a working stack: "
                f"{problem}. {RIGHT_PLACE} If they are: {APPLY}"
            )


def queue_name(url: str) -> str:
    """Return the name in a queue's URL."""
    return url.rsplit("/", 1)[-1]


def queue_path(url: str) -> str:
    """Return the account and name in a queue's URL; one queue may have several hosts."""
    return "/".join(url.rsplit("/", 2)[-2:])


# --- The submitter's functions ---


def reading_settings(environment: Mapping[str, str]) -> Settings:
    """Return settings to read files with; they need neither a key nor a queue."""
    unused = {"DATADOG_API_KEY": "unused", "REJECTED_QUEUE_URL": "https://unused"}
    try:
        return read_settings({**unused, **environment})
    except ValueError as error:
        raise Stop(f"{error}.", USAGE) from None


def within_window(settings: Settings, *, historical: bool) -> Settings:
    """Return settings that refuse points which Datadog would silently drop."""
    window = min(settings.max_age or WINDOW_SECONDS, WINDOW_SECONDS)
    return settings._replace(max_age=0 if historical else window)


def make_batch(aws: Aws, settings: Settings) -> Batch:
    """Return what the submitter's functions need for a batch of files."""
    deadline = time.monotonic() + BATCH_SECONDS
    return Batch(settings, aws.submitter(settings), deadline, Statistics())


def foresee(files: Sequence[File], batch: Batch) -> dict[File, Outcome]:
    """Return the outcome of each file, as if Datadog accepted all points."""
    return {
        file: Submitted(count_points(read), time.time()) if isinstance(read, list) else read
        for file, read in read_files(files, batch)
    }


# --- Finding the stack ---


def aws_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Declare the options of every command that uses AWS; the command line itself reads --json."""
    as_json = "Print one JSON document (tail: one a line)."
    command = click.option("--json", is_flag=True, expose_value=False, help=as_json)(command)
    command = click.option("--region", help="AWS region; default: the stack's.")(command)
    return click.option("--profile", help="AWS profile; default: your usual one.")(command)


def stack_options(command: Callable[..., int]) -> Callable[..., int]:
    """Declare the options that name a stack, and hand it to the command."""
    default = "Default: DDG_STACK, then `terraform output` in this folder."

    @click.option("--stack", envvar="DDG_STACK", help=f"{STACK_HELP} {default}")
    @aws_options
    @wraps(command)
    def with_stack(
        *arguments: Any, stack: str | None, profile: str | None, region: str | None, **options: Any
    ) -> int:
        return command(*arguments, stack=find_stack(stack, profile, region), **options)

    return with_stack


def find_stack(named: str | None, profile: str | None, region: str | None) -> Stack:
    """Return the stack of this folder's Terraform state, or the one that is named.

    Args:
        named: a stack's `name`, or a file with Terraform's outputs; None: ask Terraform.
        profile, region: of AWS; the default region is that of the outputs.
    """
    if named and re.fullmatch("[a-z0-9-]+", named) and not Path(named).is_file():
        return find_by_name(named, Aws(profile, region))
    source = f"the file {named}" if named else "`terraform output`"
    try:
        outputs = json.loads(Path(named).read_text("utf-8") if named else ask_terraform())
    except OSError as error:
        raise Stop(f"can't read {named} ({error.strerror}). {HOW_TO_NAME}", USAGE) from None
    except (ValueError, RecursionError):
        raise Stop(f"{source} isn't JSON. {HOW_TO_NAME}", USAGE) from None
    if not outputs or not isinstance(outputs, dict):
        raise Stop(f"{source} names no stack: is this where you applied it? {HOW_TO_NAME}")
    values = {
        name: output["value"] if isinstance(output, dict) and "value" in output else output
        for name, output in outputs.items()
    }
    its_own = f"{values.get('alarm_topic_arn')}:::".split(":")[3] or region
    if region not in (None, its_own):
        raise Stop(f"the stack is in {its_own}, and --region says {region}: drop it.", USAGE)
    return read_stack(values, source, Aws(profile, its_own))


def ask_terraform() -> str:
    """Return this folder's outputs as Terraform prints them."""
    command = ["terraform", "output", "-json", "-no-color"]
    try:
        run = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        raise Stop(f"no stack named, and no terraform here to ask. {HOW_TO_NAME}") from None
    if run.returncode:
        lines = [line.strip("╷│╵ ") for line in run.stderr.splitlines()]
        problem = next((line for line in lines if "rror" in line), "no error message")
        raise Stop(f"`terraform output` failed: {problem}. {HOW_TO_NAME}")
    return run.stdout


def read_stack(values: Mapping[str, Any], source: str, aws: Aws) -> Stack:
    """Return the stack that the values of Terraform's outputs describe."""
    try:
        urls, functions = values["queue_urls"], values["function_names"]
        texts = {
            "bucket": values.get("bucket") or "",
            "prefix": values.get("prefix") or "stats/",
            "main_url": urls["stats"],
            "dead_letter_url": urls["dead_letter"],
            "rejected_url": urls["rejected"],
            "function": functions["metric_submit"],
            "generator": functions.get("mock_datasource") or functions.get("heartbeat") or "",
            "topic_arn": values.get("alarm_topic_arn") or "",
        }
        alarm_names = tuple(values.get("alarm_names") or ())
        watched = dict(values.get("watched_jobs") or {})
        if not all(isinstance(text, str) for text in (*texts.values(), *alarm_names)):
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"lacks {error}" if isinstance(error, KeyError) else "has another shape"
        raise Stop(f"{source} {problem}: is it from this project? {HOW_TO_NAME}", USAGE) from None
    return Stack(aws, source, alarm_names=alarm_names, watched=watched, **texts)


def find_by_name(name: str, aws: Aws) -> Stack:
    """Return the stack of that name in this account and region; parts of it may be gone."""
    sqs, region = aws.client("sqs"), aws.region
    account = aws.client("sts").get_caller_identity()["Account"]
    alarms = {each["AlarmName"]: each["EvaluationPeriods"] for each in find_alarms(aws, f"{name}-")}
    silent, generator = f"{name}-job-silent-", f"{name}-mock-datasource"
    queue_url = f"{sqs.meta.endpoint_url}/{account}/{name}"
    stack = Stack(
        aws,
        source=f"--stack {name}",
        bucket=f"{name}-{account}-{region}",
        prefix="stats/",
        main_url=f"{queue_url}-stats",
        dead_letter_url=f"{queue_url}-dead-letter",
        rejected_url=f"{queue_url}-rejected",
        function=f"{name}-metric-submit",
        generator=generator if f"{generator}-errors" in alarms else "",
        watched={
            alarm.removeprefix(silent): hours  # its periods are hours
            for alarm, hours in alarms.items()
            if alarm.startswith(silent)
        },
        alarm_names=tuple(alarms),
        topic_arn=f"arn:{sqs.meta.partition}:sns:{region}:{account}:{name}-alarms",
    )
    try:
        environment = stack.environment()
        stack = stack._replace(prefix=environment.get("STATS_PREFIX", stack.prefix))
        # Without a bucket of the stack's own, the queue's policy admits only the others.
        others = environment.get("BUCKETS", "{}") != "{}"
        if others and f':{stack.bucket}"' not in stack.queue(stack.main_url).get("Policy", ""):
            stack = stack._replace(bucket="")
    except ClientError as error:
        if not is_missing(error):
            raise
        if not alarms:
            raise Stop(f"no stack {name} in {region} of account {account}. {RIGHT_PLACE}") from None
    return stack


def find_alarms(aws: Aws, prefix: str) -> list[dict[str, Any]]:
    """Return the alarms whose names begin with a prefix."""
    pages = aws.client("cloudwatch").get_paginator("describe_alarms")
    found = pages.paginate(AlarmNamePrefix=prefix)
    return [alarm for page in found for alarm in page["MetricAlarms"]]
