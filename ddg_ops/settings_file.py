"""The stack's settings file: its jobs, metrics and buckets, checked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SETTINGS_FILE = "stack.auto.tfvars.json"
KNOWN = {  # the attributes of an entry
    "jobs": ["mapping", "silent_after_hours"],
    "metrics": ["type", "interval", "unit", "per_unit", "short_name", "description", "monitor"],
    "buckets": ["prefix", "notify", "topic_arn", "account_id", "kms_key_arn"],
}


def read_settings_file(path: Path) -> dict[str, Any]:
    """Return the variables in a settings file; `jobs`, `metrics` and `buckets` are always there.

    Raises:
        OSError: the file can't be read.
        ValueError: it isn't a JSON object, or has unknown attributes; all are named.
    """
    try:
        variables = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} isn't JSON: {error}") from None
    if not isinstance(variables, dict):
        raise ValueError(f"{path} isn't a JSON object of Terraform variables")
    faults = []
    for name, known in KNOWN.items():
        entries = variables[name] = variables.get(name) or {}
        if not isinstance(entries, dict):
            faults.append(f"`{name}` isn't an object")
            continue
        for key, entry in entries.items():
            where = f"{name}[{json.dumps(key)}]"
            if not isinstance(entry, dict):
                faults.append(f"{where} isn't an object")
            elif unknown := ", ".join(json.dumps(each) for each in entry if each not in known):
                faults.append(f"{where} has no {unknown}, but {', '.join(known)}")
    if faults:
        raise ValueError(f"{path}: {'; '.join(faults)}")
    return variables


def submitter_environment(variables: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment that Terraform gives the submitter, without keys.

    Args:
        variables: from read_settings_file().
    """
    jobs = {
        job: {
            "mapping": entry.get("mapping") or "",
            "watched": entry.get("silent_after_hours") is not None,
        }
        for job, entry in variables["jobs"].items()
    }
    counts = {
        metric: {"type": entry["type"], "interval": entry.get("interval")}
        for metric, entry in variables["metrics"].items()
        if entry.get("type") not in (None, "gauge")
    }
    prefixes = {
        bucket: "stats/" if entry.get("prefix") is None else entry["prefix"]
        for bucket, entry in variables["buckets"].items()
    }
    environment = {
        "JOBS": json.dumps(jobs),
        "METRICS": json.dumps(counts),
        "BUCKETS": json.dumps(prefixes),
        "CONSTANT_TAGS": ",".join(variables.get("constant_tags") or ()),
    }
    for name in ("stats_prefix", "max_age_seconds", "metric_prefix"):
        if variables.get(name) is not None:
            environment[name.upper()] = str(variables[name])
    return environment
