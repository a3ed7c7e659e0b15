"""What every command of ddg_ops.py stands on: the stack, AWS, and a screen that nothing steers."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import boto3
import requests
from botocore import exceptions as aws
from botocore.config import Config
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from ddg_metric_submit import Batch, Statistics
from ddg_settings import Clients, Settings, make_clients, read_settings

FINE, WRONG, USAGE, UNABLE, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes; ddg_ops.py describes them

TERRAFORM_SECONDS = 120  # ours: a remote state takes some seconds
DATADOG_SECONDS = 10.0  # ours: Datadog answers in a tenth of a second
BATCH_SECONDS = 120.0  # ours: for the files of one batch, on a slow line
QUIET_SECONDS = 2.0  # ours: only what takes longer shows its progress
PLAIN_PROGRESS_SECONDS = 10.0  # ours: between lines of progress where there is no terminal

HOW_TO_NAME = "Name it: --stack ddg-stats, or --stack FILE that `terraform output -json` wrote."


class Stop(Exception):
    """The end of a command: a line that says what is wrong, where, and what to do."""

    def __init__(self, text: str, exit_code: int = UNABLE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


# --- The stack ---


class Stack(NamedTuple):
    """Where the parts of one deployed stack are."""

    region: str | None  # None where only the profile knows
    account: str
    bucket: str
    prefix: str
    main_url: str
    dead_letter_url: str
    rejected_url: str
    function: str  # the submitter
    log_group: str
    alarm_names: tuple[str, ...]
    topic_arn: str


def find_stack(named: str | None, profile: str | None, region: str | None) -> Stack:
    """Return the stack of this folder's Terraform state, or the one that is named.

    Args:
        named: a stack's `name`, or a file that holds Terraform's outputs; None: ask Terraform.
        profile, region: of AWS; the region of the outputs counts where none is given.
    """
    use_profile(profile, region)
    if named is not None and re.fullmatch("[a-z0-9-]+", named) and not Path(named).is_file():
        return stack_by_name(named)
    source = f"the file {named}" if named else "`terraform output`"
    stack = stack_from_outputs(read_outputs(Path(named)) if named else ask_terraform(), source)
    if stack.region and region not in (None, stack.region):
        raise Stop(f"the stack is in {stack.region}, and --region says {region}: drop it.", USAGE)
    use_profile(profile, region or stack.region)
    return stack


def ask_terraform() -> Any:
    """Return this folder's outputs as Terraform prints them."""
    command = ["terraform", "output", "-json", "-no-color"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TERRAFORM_SECONDS)
    except (FileNotFoundError, PermissionError):
        raise Stop(f"no stack named, and no terraform here to ask. {HOW_TO_NAME}") from None
    except subprocess.TimeoutExpired:
        raise Stop(f"`terraform output` takes over {TERRAFORM_SECONDS} s. {HOW_TO_NAME}") from None
    lines = [line.strip("╷│╵ ") for line in run.stderr.splitlines()]
    problem = next((line for line in lines if "rror" in line), "")
    if run.returncode:
        raise Stop(f"`terraform output` failed: {problem or 'without a word'}. {HOW_TO_NAME}")
    return json.loads(run.stdout)


def read_outputs(file: Path) -> Any:
    """Return the outputs that a file holds."""
    try:
        return json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise Stop(f"can't read {file} ({error.strerror}). {HOW_TO_NAME}", USAGE) from None
    except ValueError:
        raise Stop(f"{file} isn't JSON. Write it with `terraform output -json`.", USAGE) from None


def stack_from_outputs(outputs: Any, source: str) -> Stack:
    """Return the stack that Terraform's outputs describe, each a value or `{"value": ...}`."""
    if not outputs or not isinstance(outputs, dict):
        raise Stop(
            f"{source} names no stack. Run this where you ran `terraform apply`. {HOW_TO_NAME}"
        )
    values = {
        name: output["value"] if isinstance(output, dict) and "value" in output else output
        for name, output in outputs.items()
    }
    try:
        queues, function = values["queue_urls"], values["function_names"]["metric_submit"]
        topic_arn = values.get("alarm_topic_arn") or ""
        _, _, _, region, account, *_ = f"{topic_arn}::::::".split(":")
        return Stack(
            region=region or None,
            account=account,
            bucket=values["bucket"],
            prefix=values.get("prefix", "stats/"),
            main_url=queues["stats"],
            dead_letter_url=queues["dead_letter"],
            rejected_url=queues["rejected"],
            function=function,
            log_group=(values.get("log_groups") or {}).get("metric_submit")
            or f"/aws/lambda/{function}",
            alarm_names=tuple(values.get("alarm_names") or ()),
            topic_arn=topic_arn,
        )
    except (KeyError, TypeError) as error:
        raise Stop(f"{source} lacks {error}: is it of this project? {HOW_TO_NAME}", USAGE) from None


def stack_by_name(name: str) -> Stack:
    """Return the stack of that name in the profile's account and region, by main.tf's rules."""
    sqs = client("sqs")
    region = sqs.meta.region_name
    account = client("sts").get_caller_identity()["Account"]
    try:
        main_url, dead_letter_url, rejected_url = (
            sqs.get_queue_url(QueueName=f"{name}-{queue}")["QueueUrl"]
            for queue in ("stats", "dead-letter", "rejected")
        )
    except sqs.exceptions.QueueDoesNotExist:
        raise Stop(
            f"no stack {name} in {region} of account {account}. Compare the name with the `name` "
            "that it was applied with, and the region and account with --region and --profile."
        ) from None
    function = f"{name}-metric-submit"
    pages = (
        client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{name}-")
    )
    return Stack(
        region=region,
        account=account,
        bucket=f"{name}-{account}-{region}",
        prefix=function_environment(function).get("STATS_PREFIX", "stats/"),
        main_url=main_url,
        dead_letter_url=dead_letter_url,
        rejected_url=rejected_url,
        function=function,
        log_group=f"/aws/lambda/{function}",
        alarm_names=tuple(alarm["AlarmName"] for page in pages for alarm in page["MetricAlarms"]),
        topic_arn=f"arn:{partition()}:sns:{region}:{account}:{name}-alarms",
    )


def queue_name(url: str) -> str:
    """Return the name in a queue's URL."""
    return url.rsplit("/", 1)[-1]


def function_environment(function: str) -> dict[str, str]:
    """Return the environment that a function runs with. It may hold a key: never show it whole."""
    configuration = client("lambda").get_function_configuration(FunctionName=function)
    environment = configuration.get("Environment", {})
    if "Error" in environment:  # encrypted under a key that the profile may not use
        raise Stop(f"{function}'s environment can't be read: {environment['Error'].get('Message')}")
    variables: dict[str, str] = environment.get("Variables", {})
    return variables


def submitter_settings(environment: Mapping[str, str]) -> Settings:
    """Return settings for the submitter's functions; a key and a queue aren't needed to read."""
    unused = {"DATADOG_API_KEY": "unused", "REJECTED_QUEUE_URL": "https://unused"}
    try:
        return read_settings({**unused, **environment})
    except ValueError as error:
        raise Stop(f"{error}.", USAGE) from None


def local_batch(settings: Settings) -> Batch:
    """Return what the submitter's functions need to run here, with time for a batch of theirs."""
    return Batch(
        settings, submitter_clients(settings), time.monotonic() + BATCH_SECONDS, Statistics()
    )


@cache
def submitter_clients(settings: Settings) -> Clients:
    """Make the submitter's clients with the command's own session, and keep them."""
    session: Any = boto3.DEFAULT_SESSION
    return make_clients(settings, session._session)


def key_problem(host: str, api_key: str) -> str:
    """Ask Datadog whether it takes the key; return "" or what is wrong and what to do."""
    try:
        answer = requests.get(
            f"{host.rstrip('/')}/api/v1/validate",
            headers={"DD-API-KEY": api_key},
            timeout=DATADOG_SECONDS,
            allow_redirects=False,  # the key would travel
        )
        if answer.status_code == 200 and answer.json().get("valid") is True:
            return ""
    except requests.RequestException as error:
        return (
            f"{host} can't be reached from here ({type(error).__name__}). Compare it with your "
            "site's address; see status.datadoghq.com, and your network and proxy."
        )
    if answer.status_code in (401, 403):
        return (
            f"{host} doesn't take the API key ({answer.status_code}). It is wrong or revoked, or "
            "of another site: compare ddg_site with the address bar when you are logged in."
        )
    return f"{host} answered {answer.status_code}, not that the key is valid. Try again later."


# --- AWS ---


def use_profile(profile: str | None, region: str | None) -> None:
    """Have all clients, the submitter's own too, use a profile and a region (None: the usual)."""
    client.cache_clear()
    submitter_clients.cache_clear()
    boto3.setup_default_session(profile_name=profile, region_name=region)


@cache
def client(service: str) -> Any:
    """Make a service's client where it is first needed, and keep it."""
    make: Any = boto3.client
    config = Config(
        connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 3}
    )
    return make(service, config=config)


def partition() -> str:
    """Return aws, aws-us-gov or aws-cn: what ARNs begin with."""
    return str(client("sqs").meta.partition)


def time_at_aws(response: Mapping[str, Any]) -> float:
    """Return AWS's clock when it answered, epoch seconds in whole: ours may be wrong."""
    date = response["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date).timestamp() if date else time.time()


UNKNOWN_CREDENTIALS = {
    "AuthFailure",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
DENIED = {"403", "AccessDenied", "AccessDeniedException", "AuthorizationError", "Forbidden"}
MISSING = {"404", "NoSuchBucket", "NoSuchKey", "QueueDoesNotExist", "ResourceNotFoundException"}
WHO_AM_I = "`aws sts get-caller-identity` shows who you are; choose with --profile or AWS_PROFILE."


def explain(error: aws.ClientError | aws.BotoCoreError) -> str:
    """Return an error of AWS's as one line that says what to do."""
    if isinstance(error, aws.ClientError):
        operation, text = error.operation_name, error.response["Error"].get("Message", "")
        code = error.response["Error"].get("Code", "").rsplit(".", 1)[-1]
        if code in UNKNOWN_CREDENTIALS:
            return f"AWS doesn't know these credentials ({code}). {WHO_AM_I}"
        if code in EXPIRED:
            return f"your AWS credentials have expired. Log in again (`aws sso login`). {WHO_AM_I}"
        if code in DENIED:
            return f"your AWS profile may not {operation} ({text}). {WHO_AM_I}"
        if code in MISSING or code.endswith("NonExistentQueue"):
            return (
                f"not there ({operation}: {text}). Is this the right stack, region and account? "
                f"{HOW_TO_NAME}"
            )
        return f"AWS answered {operation} with {code}: {text}. Try again; --stack, --region right?"
    if isinstance(error, aws.ProfileNotFound):
        return f"{error}. `aws configure list-profiles` shows those that are there."
    if isinstance(error, aws.NoRegionError):
        return "no AWS region. Give --region, or set AWS_REGION."
    if isinstance(error, aws.HTTPClientError | aws.EndpointConnectionError):
        return f"AWS can't be reached ({error}). Look at the network, the proxy and the region."
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return f"no AWS credentials. Log in (`aws configure`, `aws sso login`). {WHO_AM_I}"
    return f"no way to AWS: {error}. Log in again (`aws sso login`)? {WHO_AM_I}"


# --- What must outlive a power cut ---


def flush(file: IO[Any]) -> None:
    """Put a file's content on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Put a folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- What a person sees ---


def clean(text: str) -> str:
    """Return a text that can't steer a terminal: one line, whatever a key or a reason holds."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class Lines(Console):
    """A console that leaves it to main() what a reader's leaving means."""

    def on_broken_pipe(self) -> None:
        """Go on with the BrokenPipeError: rich would exit with 1, which says that files are bad."""
        raise  # rich calls this where one is being handled


class Screen:
    """Lines for a person, or with --json one document for a machine."""

    def __init__(self, as_json: bool) -> None:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a terminal may lack a character
        self.as_json = as_json
        self.out = Lines(highlight=False, soft_wrap=True)
        self.err = Lines(highlight=False, soft_wrap=True, stderr=True)

    def say(self, text: str, style: str = "") -> None:
        """Print a line, unless a machine reads."""
        if not self.as_json:
            self.out.print(Text(clean(text), style))

    def note(self, text: str, style: str = "") -> None:
        """Print a line beside the output."""
        self.err.print(Text(clean(text), style))

    def result(self, document: object) -> None:
        """Print a document, if a machine reads; in ASCII, so that nothing in it steers either."""
        if self.as_json:
            print(json.dumps(document), flush=True)

    @contextmanager
    def progress(self, unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Yield what is called with the number done; shows a bar if it takes long, or lines."""
        started = said = time.monotonic()
        done = 0
        of = "" if total is None else f" of about {total:,}"
        with Progress(
            console=self.err,
            transient=True,
            disable=not self.err.is_terminal,
            redirect_stdout=False,  # it would end up on this console, whatever it was sent to
            redirect_stderr=False,
        ) as bar:
            task = bar.add_task(unit, total=total, visible=False)

            def advance(number: int) -> None:
                nonlocal done, said
                done += number
                now = time.monotonic()
                shown = f"{done:,}{of} {unit}"
                visible = now - started > QUIET_SECONDS
                bar.update(task, completed=done, description=shown, visible=visible)
                if not self.err.is_terminal and now - said > PLAIN_PROGRESS_SECONDS:
                    said = now
                    self.note(shown)

            yield advance


def age(seconds: float) -> str:
    """Return a span in its largest unit."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def utc(seconds: float) -> str:
    """Return epoch seconds as a date and time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> float:
    """Return epoch seconds: of 30m, 6h, 2d ago; of 12:00, the last one; of a date; of now. In UTC.

    Raises ValueError for anything else.
    """
    now = datetime.now(UTC)
    if text == "now":
        return now.timestamp()
    if span := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return now.timestamp() - int(span[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[span[2]]
    if re.fullmatch(r"\d{9,11}", text):
        return float(text)
    if re.fullmatch(r"\d\d?:\d\d", text):
        today = datetime.combine(now, time_of_day.fromisoformat(text.zfill(5)), UTC)
        return (today if today <= now else today - timedelta(days=1)).timestamp()
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
