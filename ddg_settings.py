"""What an invocation works with: checked settings, clients and a deadline."""

import base64
import gzip
import json
import re
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

import ddg_stats_file
from ddg_outcomes import Statistics
from ddg_s3_objects import FETCH_THREADS, Service
from ddg_series_api import MetricType, SeriesApi
from ddg_stats_file import METRIC_NAME

KEEP_THREADS = 8  # refusals sent in parallel; more would compete for the CPU
KEY_SECONDS = 300.0  # how long a key counts as valid before it is checked again
MAX_INTERVAL_SECONDS = 31_536_000  # a year
OBJECTS = "a JSON object of objects, or the base64 of its gzip"
AWS_ERRORS = (BotoCoreError, ClientError, HTTPError)  # HTTPError: a response breaks off


class Job(NamedTuple):
    """The settings of a job."""

    mapping: str = ""  # JMESPath; "" if its files follow the contract
    watched: bool = False  # count its files separately


class Settings(NamedTuple):
    """The environment, checked."""

    api_key: str  # "" if it is in the secret
    api_key_secret_arn: str
    app_key: str | None
    api_host: str
    stats_prefix: str  # of all buckets but the following
    buckets: str  # BUCKETS as given: text can be hashed, a dict can't
    rejected_queue_url: str
    constant_tags: frozenset[str]  # normalised
    jobs: str  # JOBS as given
    metrics: str  # METRICS as given
    metric_prefix: str
    max_age: int  # seconds; 0 means no limit
    log_level: str
    log_files: bool  # print the objects submitted

    def __repr__(self) -> str:
        return "Settings(...)"  # it holds keys

    def prefix_of(self, bucket: str) -> str:
        """Return the prefix of a bucket's stats files."""
        return read_buckets(self.buckets).get(bucket, self.stats_prefix)

    def job(self, folder: str) -> Job:
        """Return the settings of a job; its folder is taken as written."""
        return read_jobs(self.jobs).get(folder, Job())


@dataclass(repr=False)  # it would show the key
class ApiKey:
    """The API key, how to read it again, and when Datadog last called it valid."""

    value: str  # "" until the secret is read
    read: Callable[[float], str]
    valid_at: float = float("-inf")  # epoch seconds

    def refresh(self, seconds: float) -> bool:
        """Read the key again within the seconds; tell whether it has changed."""
        key = self.read(seconds)
        if key == self.value:
            return False
        self.value, self.valid_at = key, float("-inf")
        return True

    def is_valid(self, now: float) -> bool:
        """Tell whether Datadog called it valid recently; the clock may have been set back."""
        return 0 <= now - self.valid_at <= KEY_SECONDS


class Clients(NamedTuple):
    """The services that an invocation talks to; kept for the next one."""

    s3: Service
    large: Service  # S3 in one thread: each thread keeps the memory of what it has read
    sqs: Service
    datadog: SeriesApi
    key: ApiKey


class Batch(NamedTuple):
    """What each step of an invocation needs."""

    settings: Settings
    clients: Clients
    deadline: float  # of time.monotonic(); don't start what can't be done by then
    statistics: Statistics

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Check the environment and return it; a ValueError names the variable that is wrong."""

    def checked(name: str, pattern: str, needed: str, default: str | None = None) -> str:
        value = environ.get(name, default)
        if value is None or not re.fullmatch(pattern, value, re.ASCII):
            # Don't show the value: it may be a key.
            raise ValueError(f"{name} is {'missing' if value is None else 'malformed'}: {needed}")
        return value

    key = "a Datadog key, without white space or control characters"
    secret_arn = environ.get("DATADOG_API_KEY_SECRET_ARN", "")
    constant_tags = environ.get("CONSTANT_TAGS", "")
    tags = frozenset(map(ddg_stats_file.normalise_tag, constant_tags.split(",")))
    if constant_tags and "" in tags:
        raise ValueError("CONSTANT_TAGS is malformed: tags with commas between, env:prod,team:data")
    prefix = environ.get("METRIC_PREFIX", "")
    if prefix and not METRIC_NAME.fullmatch(f"{prefix}a"):
        raise ValueError(
            "METRIC_PREFIX is malformed: metric names must be able to follow it, as with etl."
        )
    buckets, jobs, metrics = (environ.get(name, "") for name in ("BUCKETS", "JOBS", "METRICS"))
    read_buckets(buckets)
    read_jobs(jobs)
    read_metrics(metrics)
    return Settings(
        api_key="" if secret_arn else checked("DATADOG_API_KEY", "[!-~]+", key),
        api_key_secret_arn=secret_arn,
        app_key=checked("DATADOG_APP_KEY", "[!-~]+", key) if "DATADOG_APP_KEY" in environ else None,
        api_host=checked(
            "DATADOG_HOST",
            r"https?://([\w.-]+|\[[\da-fA-F:]+\])(:\d{1,5})?/?",
            "the address of your site's API, such as https://api.datadoghq.eu",
            "https://api.datadoghq.com",
        ),
        stats_prefix=environ.get("STATS_PREFIX", "stats/"),
        buckets=buckets,
        rejected_queue_url=checked("REJECTED_QUEUE_URL", r"https?://\S+", "an SQS queue's URL"),
        constant_tags=tags - {""},
        jobs=jobs,
        metrics=metrics,
        metric_prefix=prefix,
        max_age=int(checked("MAX_AGE_SECONDS", r"\d{1,10}", "seconds, 0 for no limit", "3600")),
        log_level=checked(
            "LOG_LEVEL", "(?i:DEBUG|INFO|WARNING|ERROR|CRITICAL)", "a logging level", "INFO"
        ).upper(),
        log_files=checked("LOG_FILES", "true|false", "true or false", "true") == "true",
    )


def read_members(name: str, text: str, kind: type, needed: str) -> dict[str, Any]:
    """Return a JSON object with members of a kind, plain or as the base64 of its gzip; "" is {}.

    Raises:
        ValueError: it is neither; `name` is the variable, and `needed` what it must be.
    """
    is_plain = text.lstrip()[:1] in ("", "{")
    try:
        plain = text if is_plain else gzip.decompress(base64.b64decode(text, validate=True))
        members = json.loads(plain or "{}")
        if all(isinstance(member, kind) for member in members.values()):
            return dict(members)
    except (ValueError, AttributeError, RecursionError, EOFError, OSError, zlib.error):
        pass  # reported below
    raise ValueError(f"{name} is malformed: {needed}")


@cache
def read_buckets(text: str) -> dict[str, str]:
    """Return the prefix of each bucket in BUCKETS."""
    return read_members("BUCKETS", text, str, 'JSON, bucket to prefix, {"acme-data": "etl/stats/"}')


@cache
def read_jobs(text: str) -> dict[str, Job]:
    """Return the settings of each job in JOBS, by its folder; unknown members are ignored."""
    jobs = {}
    for folder, known in read_members("JOBS", text, dict, OBJECTS).items():
        mapping, watched = known.get("mapping", ""), known.get("watched", False)
        if not isinstance(mapping, str) or not isinstance(watched, bool):
            raise ValueError(
                f"JOBS is malformed: {folder}: mapping is a string, watched is true or false"
            )
        jobs[folder] = Job(mapping, watched)
    return jobs


@cache
def read_metrics(text: str) -> dict[str, MetricType]:
    """Return the type of each metric in METRICS, by its whole name."""
    types = {}
    for metric, known in read_members("METRICS", text, dict, OBJECTS).items():
        kind, interval = known.get("type", "gauge"), known.get("interval")
        if kind not in ("gauge", "count"):
            raise ValueError(
                f"METRICS is malformed: {metric}: type is gauge or count. A rate is a count with "
                "an interval, and a distribution would add up what is delivered twice."
            )
        whole = type(interval) is int and 1 <= interval <= MAX_INTERVAL_SECONDS
        if interval is not None and (kind == "gauge" or not whole):
            raise ValueError(
                f"METRICS is malformed: {metric}: interval is the whole seconds that a count "
                f"covers, 1 to {MAX_INTERVAL_SECONDS:,}"
            )
        types[metric] = MetricType(kind, interval)
    return types


def make_clients(settings: Settings, session: botocore.session.Session) -> Clients:
    """Make the clients for settings and a botocore session; no request is sent."""
    secrets = Service(session, "secretsmanager", 1)
    arn = settings.api_key_secret_arn

    def read(seconds: float) -> str:
        return read_secret_key(secrets, arn, seconds)

    return Clients(
        s3=Service(session, "s3", FETCH_THREADS),
        large=Service(session, "s3", 1),
        sqs=Service(session, "sqs", KEEP_THREADS),
        datadog=SeriesApi(settings.api_host, settings.app_key),
        key=ApiKey(settings.api_key, read if arn else lambda _: settings.api_key),
    )


def read_secret_key(secrets: Service, arn: str, seconds: float) -> str:
    """Read the API key from Secrets Manager: plain, or JSON with an "api_key".

    Raises:
        ValueError: it can't be read within the seconds, or isn't a key.
    """
    try:
        call = secrets.start(lambda client: client.get_secret_value(SecretId=arn))
        secret = str(secrets.result(call, seconds).get("SecretString", ""))
    except (*AWS_ERRORS, TimeoutError) as error:
        raise ValueError(
            f"DATADOG_API_KEY_SECRET_ARN can't be read: {type(error).__name__}. "
            "Look at the role's policy and at the secret's region."
        ) from None
    try:
        key = json.loads(secret)["api_key"] if secret.lstrip().startswith("{") else secret
        if re.fullmatch("[!-~]+", key.strip()):
            return str(key.strip())
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # reported below, without the value
    raise ValueError('DATADOG_API_KEY_SECRET_ARN: the secret is neither a key nor {"api_key": ...}')
