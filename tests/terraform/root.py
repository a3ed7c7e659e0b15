"""The real terraform CLI on a copy of a root's files."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "TF_CLI_CONFIG_FILE")  # nothing else gets in

KEYS = {"ddg_api_key": "X", "ddg_app_key": "X"}  # as documented

SERVICES = ["cloudwatch", "events", "iam", "lambda", "logs", "s3", "sns", "sqs", "sts"]
LOCAL = """\
provider "aws" {{
  access_key                  = "testing"
  secret_key                  = "testing"
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true

  endpoints {{
{endpoints}
  }}
}}
"""


class Root:
    """A Terraform root in a folder of its own."""

    def __init__(self, folder: Path, **variables: object) -> None:
        """Take a folder with the files; the variables go to plan and apply, never to destroy."""
        self.folder = folder
        self.variables = variables

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run terraform and return what it printed; fails unless it ends with the code."""
        done = subprocess.run(
            ["terraform", arguments[0], "-no-color", *arguments[1:]],
            cwd=self.folder,
            env={
                **{name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
                "TF_IN_AUTOMATION": "1",
                "TF_INPUT": "0",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, f"terraform {arguments}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def apply(self, *, code: int = 0, **variables: object) -> str:
        """Apply with the root's variables and these; return what was printed."""
        return self.run("apply", "-auto-approve", *self._given(variables), code=code)

    def plan(self, *, code: int = 0, **variables: object) -> str:
        """Plan likewise."""
        return self.run("plan", *self._given(variables), code=code)

    def changes(self, **variables: object) -> dict[str, set[str]]:
        """Plan; return the addresses of what would be done, by action. To read is to do nothing."""
        self.run("plan", "-out=changes.tfplan", *self._given(variables))
        plan = json.loads(self.run("show", "-json", "changes.tfplan"))
        changes: dict[str, set[str]] = {}
        for change in plan.get("resource_changes", []):
            changes.setdefault("+".join(change["change"]["actions"]), set()).add(change["address"])
        return {action: some for action, some in changes.items() if action not in ("no-op", "read")}

    def destroy(self, **variables: object) -> str:
        """Destroy with these variables, bare by default."""
        arguments = [f"-var={name}={as_argument(value)}" for name, value in variables.items()]
        return self.run("destroy", "-auto-approve", *arguments)

    def outputs(self) -> dict[str, Any]:
        """Return the outputs."""
        return {
            name: output["value"]
            for name, output in json.loads(self.run("output", "-json")).items()
        }

    def resources(self) -> dict[str, dict[str, Any]]:
        """Return the attributes of all that is in the state, by address."""
        module = json.loads(self.run("show", "-json"))["values"]["root_module"]
        return {resource["address"]: resource["values"] for resource in module["resources"]}

    def _given(self, more: Mapping[str, object]) -> list[str]:
        given = {**self.variables, **more}
        return [f"-var={name}={as_argument(value)}" for name, value in given.items()]


def as_argument(value: object) -> str:
    """Return a value the way -var takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def copy_stack(folder: Path, endpoint: str, **variables: object) -> Root:
    """Copy the stack's root with its zips and tests, pointed at an endpoint, and find providers."""
    copy_files(PROJECT, folder, "*.tf", "*.zip", "tests/*.tftest.hcl")
    endpoints = "\n".join(f'    {service} = "{endpoint}"' for service in SERVICES)
    (folder / "local_override.tf").write_text(LOCAL.format(endpoints=endpoints))
    return init(Root(folder, **variables))


def copy_dashboard(folder: Path, **variables: object) -> Root:
    """Copy the dashboard's root and find providers."""
    copy_files(PROJECT / "dashboard", folder, "*.tf", "tests/*.tftest.hcl")
    return init(Root(folder, **variables))


def copy_files(source: Path, folder: Path, *patterns: str) -> None:
    """Copy what the patterns match, but no override: a developer may have one."""
    for pattern in patterns:
        for file in source.glob(pattern):
            if not file.name.endswith("_override.tf"):
                copy = folder / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)


def init(root: Root) -> Root:
    """Let terraform find the providers."""
    root.run("init")
    return root
