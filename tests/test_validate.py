"""ddg-ops validate: how it applies the jobs and metrics of a settings file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.operated import run

SETTINGS = {
    "jobs": {
        "dbt": {"mapping": "results[*].{tags: [join(':', ['model', name])], seconds: s}"},
        "wrong": {"mapping": "round(@)"},
        "watched": {"silent_after_hours": 26},
    },
    "metrics": {
        "etl.rows": {"type": "count", "interval": 60},
        "etl.seconds": {"unit": "second", "per_unit": "row"},
    },
    "metric_prefix": "etl.",
    "constant_tags": ["env:prod"],
    "max_age_seconds": 0,
}
DBT = {"results": [{"name": "a", "s": 1.5}, {"name": "b", "s": 2}]}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with a settings file and files of jobs."""
    monkeypatch.chdir(tmp_path)
    Path("stack.auto.tfvars.json").write_text(json.dumps(SETTINGS))
    Path("dbt.json").write_text(json.dumps(DBT))
    Path("_SUCCESS").touch()
    Path("rows.json").write_text('{"timestamp": 0, "rows": 5}')


@pytest.mark.parametrize(
    ("line", "code", "shown"),
    [
        (
            "--job dbt dbt.json",
            0,
            "2 custom metrics\netl.seconds{env:prod,job:dbt,model:a} = 1.5  (gauge, second/row)",
        ),
        ("--job watched rows.json", 0, "etl.rows{env:prod,job:watched} = 5  (count of 60 s)\n"),
        ("--job wrong rows.json", 1, "retried  rows.json: the job's mapping is wrong: there is no"),
        ("--job dbt rows.json", 1, "refused  rows.json: the mapping finds nothing"),
        (
            "--propose --job new dbt.json",
            0,
            '"jobs": {"new": {"mapping": "results[*].{tags: {name: name}, s: s}"}}\nok  ',
        ),
        ("--propose misspelt.json", 1, "refused  misspelt.json: no mapping can be proposed"),
        ("--propose _SUCCESS", 0, "_SUCCESS: a marker"),
        ("rows.json --settings none.json", 3, "none.json: No such file"),
        ("rows.json --settings misspelt.json", 2, 'jobs["a"] has no "maping", but mapping'),
        ("rows.json --settings wrong.json", 2, "METRICS is malformed: a: type is gauge or count"),
        ("rows.json --settings other.json --max-age 0", 0, "\nrows{} = 5"),
        ("rows.json --settings other.json --stack s", 2, "Leave out --settings."),
    ],
)
def test_settings_file(line: str, code: int, shown: str) -> None:
    """It uses the file in the current folder or the named one, and reports its faults."""
    others: dict[str, Any] = {
        "misspelt": {"jobs": {"a": {"maping": ""}}},
        "wrong": {"metrics": {"a": {"type": "rate"}}},
        "other": {},
    }
    for name, content in others.items():
        Path(f"{name}.json").write_text(json.dumps(content))
    result = run("validate", *line.split())
    printed = re.sub(" {9}[0-9TZ:-]{20}  ", "", result.out + result.err)
    assert (result.code, shown in printed) == (code, True), printed


def test_environment_comes_first() -> None:
    """An environment variable of the submitter overrides the settings file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METRIC_PREFIX", "x.")
        points = run("validate rows.json --json").document["files"][0]["points"]
    assert [point["metric"] for point in points] == ["x.rows"]
