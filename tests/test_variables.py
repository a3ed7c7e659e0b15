"""Which values each variable accepts, and that the submitter accepts them too."""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ddg_settings import read_settings
from tests.test_settings import ROOT, attributes, read_blocks


class Row(NamedTuple):
    """Values of a variable."""

    variable: str
    taken: Sequence[object]
    refused: Sequence[object]
    stricter: Sequence[object] = ()  # refused only by Terraform
    along: Mapping[str, object] = {}  # other variables


SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog"
KMS_KEY = "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab"
SITES = "datadoghq.com datadoghq.eu us3.datadoghq.com us5.datadoghq.com us9.datadoghq.com \
    ap1.datadoghq.com ap2.datadoghq.com uk1.datadoghq.com ddog-gov.com us2.ddog-gov.com"
NO_SITES = "api.us3.datadoghq.com app.datadoghq.com evildatadoghq.com datadoghq.com.example.org"
KEYS = ["X", "0123456789abcdef0123456789abcdef", "!~"]
NO_KEYS = ["", "a b", "ab\n", "a\tb", "a\0b", "schlüssel"]
TOPIC = "arn:aws:sns:us-east-1:210987654321:acme_up-loads"
DATA_KEY = KMS_KEY.replace("us-gov-west-1", "us-east-1")


def data(**attributes: object) -> dict[str, object]:
    """Return a bucket with attributes, as the variable `buckets` has it."""
    return {"acme-data": attributes}


SETTINGS = [  # that the submitter reads
    Row("ddg_api_key", KEYS, NO_KEYS),
    Row("ddg_app_key", KEYS, NO_KEYS),
    Row(
        "ddg_api_key_secret_arn",
        [f"{SECRET}-AbCdEf", f"{SECRET.replace('aws', 'aws-us-gov', 1)}/of/mine-AbCdE1"],
        [],
        ["", "datadog-AbCdEf", SECRET],
    ),
    Row("ddg_site", SITES.split(), ["https://api.datadoghq.com"], ["", *NO_SITES.split()]),
    Row("max_age_seconds", [0, 1, 9_999_999_999], [-1, 0.5, 10_000_000_000, 10**15]),
    Row(
        "constant_tags",
        [[], ["env:prod", "team:data"], ["größe:l"], ["a" * 200], ["a"] * 99],
        [["a", ""], ["1"]],
        [[""], ["a,b"], ["a b"], ["1st"], ["a" * 201], ["a"] * 100],
    ),
    Row(
        "stats_prefix",
        ["s/", "a_b/c-d/1.2/", "s" * 255 + "/"],
        [],
        ["", "stats", "/stats/", "a//b/", "*/", "a b/", "s" * 256 + "/"],
    ),
    Row(
        "jobs",
        [
            *({}, {"a": {}}, {"dbt é": {"mapping": "a[?b == '<&>']"}, "b": {"mapping": None}}),
            {"a ~": {"silent_after_hours": 1}, "b" * 200: {"silent_after_hours": 167}},
        ],
        [[1], "a", *({"a": each} for each in ("numbers(@)", None, {"mapping": ["a"]}))],
        [
            *({"": {}}, {"a/b": {}}, {"a": {"maping": "a"}}, {"a": {"mapping": ""}}),
            *({"a": {"silent_after_hours": hours}} for hours in (0, 1.5, 168, "", [1])),
            *({job: {"silent_after_hours": 1}} for job in (" ", "é", "a\tb", "b" * 201)),
        ],
    ),
    Row(
        "metrics",
        [
            {},
            {"a": {}, "a.b_c": {"type": "gauge", "interval": None}, "A" * 200: {"type": "count"}},
            *({"a": {"type": "count", "interval": seconds}} for seconds in (1, 31_536_000)),
            {"a": dict.fromkeys(("unit", "per_unit", "short_name", "description", "monitor"))},
        ],
        [
            *([1], "a", {"a": "count"}, {"a": None}),
            *({"a": {"type": kind}} for kind in ("", "distribution", "rate", "Count", ["count"])),
            *({"a": {"type": "count", "interval": n}} for n in (0, -1, 1.5, "", 31_536_001, [1])),
            *({"a": {"type": kind, "interval": 60}} for kind in ("gauge", None)),
        ],
        [
            {"a": {"typ": "count"}},
            *({name: {}} for name in ("", "9a", "a-b", "a__b", "a_", "a._b", "A" * 201)),
        ],
    ),
    Row(
        "metric_prefix",
        ["", "etl.", "a_", "A.b9_c", "a" * 199],
        ["9x.", ".", "_", "é.", "a b", "a__", "a._", "a_.", "a" * 200],
    ),
    Row(
        "buckets",
        [
            {},
            *({name: {}} for name in ("a.b", "1-2", "b" * 63)),
            *(data(prefix=prefix) for prefix in ("", "etl/stats/", "dt=1 é+(/", "s" * 511 + "/")),
            data(topic_arn=TOPIC),
            data(notify="sns", topic_arn=TOPIC, account_id="012345678901", kms_key_arn=DATA_KEY),
            data(notify="s3", account_id="210987654321"),
            {"acme-data": None, "acme-logs": {"prefix": None, "notify": None, "topic_arn": None}},
        ],
        [],
        [
            *({name: {}} for name in ("", "ab", "s3://acme", "Acme", "acme-", "b" * 64)),
            {"ddg-stats-123456789012-us-east-1": {}},
            data(prefx="etl/"),
            *(data(prefix=prefix) for prefix in ("etl", "*/", "$/", "'/", "a\n/", "s" * 512 + "/")),
            data(notify="email"),
            data(notify="sns"),
            *(data(notify=other, topic_arn=TOPIC) for other in ("s3", "eventbridge")),
            *(data(topic_arn=arn) for arn in ("", TOPIC.replace("us-", "eu-"), TOPIC + ".fifo")),
            *(data(account_id=account) for account in ("", 12345678901, "1" * 13)),
            *(data(kms_key_arn=arn) for arn in ("", KMS_KEY, "arn:aws:kms:us-east-1:1:alias/a")),
        ],
    ),
]
ROWS = [
    *SETTINGS,
    Row("ddg_api_key_kms_key_arn", [KMS_KEY], ["", KMS_KEY[-35:], "arn:aws:kms:x:1:alias/mine"]),
    Row(
        "name",
        ["abc", "1-2", "a23456789-123456789-1234"],
        ["", "ab", "Stats", "-stats", "stats-", "a_b", "a23456789-123456789-12345"],
    ),
    Row("aws_region", ["us-east-1"], ["", "Frankfurt", "us-east", "us-east-1a", "eu-central-1"]),
    Row(
        "tags",
        [{}, {"cost centre": "4711"}, {"a": "é=/+-@_.:"}, {"k" * 128: "v" * 256}],
        [{"a": ""}, {"": "x"}, {"a": None}, {"AWS:a": "x"}, {"a": "b&c"}, {"k": "v" * 257}],
    ),
    Row(
        "permissions_boundary_arn",
        [f"arn:{account}:policy/a/b" for account in ("aws:iam::123456789012", "aws-cn:iam::aws")],
        ["", "boundary", "arn:aws:iam::123456789012:role/a"],
    ),
    Row("iam_role_path", ["/", "/teams/d-a.t_a/"], ["", "data/", "/data", "//", "/a b/", "/é/"]),
    Row(
        "subnet_ids",
        [["subnet-0a", "subnet-0123456789abcdef0"]],
        [[], ["10.0.0.0/8"], ["subnet-A"]],
        along={"security_group_ids": ["sg-0a"]},
    ),
    Row("subnet_ids", [[]], [["subnet-0a"]]),
    Row(
        "security_group_ids",
        [["sg-0a"]],
        [["default"]],
        along={"subnet_ids": ["subnet-0123456789"]},
    ),
    Row("kms_key_arn", [DATA_KEY], ["", KMS_KEY, "alias/a", "arn:aws:kms:us-east-1:1:alias/a"]),
    Row("architectures", [["arm64"], ["x86_64"]], [[], ["arm"], ["arm64", "x86_64"]]),
    Row("zip_folder", [".", "../of mine"], ["", " "]),
    Row("file_retention_days", [15, 3650], [14, 15.5]),
    Row("mock_interval_minutes", [1, 1440], [0, 1.5, 1441]),
    Row(
        "heartbeat_schedule",
        [None, *(f"rate({each})" for each in ("1 minute", "15 minutes", "24 hours", "1 day"))],
        ["", *(f"rate({each})" for each in ("1 minutes", "1500 minutes", "25 hours", "2 days"))],
    ),
    Row("mock_schedule", [None], ["", "rate(1 minute)"]),
    Row("create_bucket", [True], [False]),
    Row("create_bucket", [False], [], along={"buckets": data()}),
    Row("batch_size", [1, 10], [0, 1.5, 11]),
    Row("batch_size", [11, 10_000], [10_001], along={"batch_window": 1}),
    Row("batch_window", [0, 300], [-1, 1.5, 301]),
    Row("maximum_concurrency", [2, 1000], [1, 2.5, 1001]),
    Row("memory_size", [128, 10_240], [127, 128.5, 10_241]),
    Row("log_retention_days", [1, 30, 3653], [0, 1.5, 31, 3654]),
    Row("alarm_email", ["a@b.c", "a.b+c@d.example.com"], ["", "oncall", "a@b.c, d@e.f"]),
]


@pytest.mark.skipif(not shutil.which("terraform"), reason="there is no terraform here")
def test_terraform_takes_and_refuses(tmp_path: Path) -> None:
    """A plan for each value; the error names the variable."""
    variables = (ROOT / "variables.tf").read_text()
    here = variables.replace("data.aws_region.current.id", '"us-east-1"')  # needs no provider then
    own = 'locals { bucket_name = "ddg-stats-123456789012-us-east-1" }'
    (tmp_path / "variables.tf").write_text(f"{here}\n{own}\n")
    runs: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(ROWS):
        for verdict, values in (("takes", row.taken), ("no", [*row.refused, *row.stricter])):
            for index, value in enumerate(values):
                run = {"command": "plan", "variables": {row.variable: value, **row.along}}
                expected = {"expect_failures": [f"var.{row.variable}"]} if verdict == "no" else {}
                runs[f"{row.variable}_{verdict}_{number}_{index}"] = run | expected
    (tmp_path / "variables.tftest.json").write_text(json.dumps({"run": runs}))
    command = ["terraform", "test", "-no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert f"{len(runs)} passed, 0 failed" in done.stdout, done.stdout + done.stderr


def test_each_variable_has_rows() -> None:
    """Except switches."""
    blocks = read_blocks(ROOT, "variable")
    switches = {name for name, block in blocks.items() if attributes(block, "type") == ["bool"]}
    assert {row.variable for row in ROWS} | switches == blocks.keys()


def given(entries: Any) -> str:
    """Return JSON without attributes that are null, as Terraform writes it."""
    if isinstance(entries, dict):
        entries = {
            name: {key: value for key, value in entry.items() if value is not None}
            if isinstance(entry, dict)
            else entry
            for name, entry in entries.items()
        }
    return json.dumps(entries)


# How main.tf passes a variable to the submitter; stack.tftest.hcl checks main.tf
ENVIRONMENT: dict[str, Callable[[Any], dict[str, str]]] = {
    "ddg_api_key": lambda key: {"DATADOG_API_KEY": key},
    "ddg_app_key": lambda key: {"DATADOG_APP_KEY": key},
    "ddg_api_key_secret_arn": lambda arn: {"DATADOG_API_KEY_SECRET_ARN": arn},
    "ddg_site": lambda site: {"DATADOG_HOST": f"https://api.{site}"},
    "max_age_seconds": lambda seconds: {"MAX_AGE_SECONDS": str(seconds)},
    "constant_tags": lambda tags: {"CONSTANT_TAGS": ",".join(tags)},
    "jobs": lambda jobs: {"JOBS": given(jobs)},
    "metrics": lambda metrics: {"METRICS": given(metrics)},
    "metric_prefix": lambda prefix: {"METRIC_PREFIX": prefix},
    "stats_prefix": lambda prefix: {"STATS_PREFIX": prefix},
    "buckets": lambda buckets: {"BUCKETS": json.dumps(dict.fromkeys(buckets, "stats/"))},
}


def submitter_takes(variable: str, value: object) -> bool:
    """Return whether the submitter starts with a value."""
    always = {"DATADOG_API_KEY": "X", "REJECTED_QUEUE_URL": "https://sqs/rejected"}
    try:
        read_settings({**always, **ENVIRONMENT[variable](value)})
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.variable)
def test_submitter_takes_what_terraform_takes(row: Row) -> None:
    """Otherwise a setting could be applied, and every batch would fail."""
    values = [*row.taken, *row.refused, *row.stricter]
    taken = [value for value in values if submitter_takes(row.variable, value)]
    assert taken == [*row.taken, *row.stricter]
