"""The real terraform CLI on a copy of a root's files."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from tests.terraform.cloud import ADMINISTRATOR, REGION

PROJECT = Path(__file__).resolve().parent.parent.parent
KEPT = ("PATH", "HOME", "TMPDIR", "TF_CLI_CONFIG_FILE")  # of the environment
SETTINGS = "stack.auto.tfvars.json"
STACK = ("*.tf", "*.zip", "tests/*.tftest.hcl")

AWS = {
    "AWS_REGION": REGION,
    "AWS_ACCESS_KEY_ID": ADMINISTRATOR["AccessKeyId"],
    "AWS_SECRET_ACCESS_KEY": ADMINISTRATOR["SecretAccessKey"],
}
KEYS = {"TF_VAR_ddg_api_key": "X", "TF_VAR_ddg_app_key": "X"}


class Step(NamedTuple):
    """A line of what apply or destroy prints."""

    event: str  # "start" or "complete"
    action: str  # "create", "update" or "delete"
    address: str


class Root:
    """A Terraform root in its own folder, with one file of settings."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = environment

    def configure(self, **settings: object) -> None:
        """Change these settings."""
        file = self.folder / SETTINGS
        before = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**before, **settings}))

    def unset_keys(self) -> None:
        self.environment = {k: v for k, v in self.environment.items() if k not in KEYS}

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run terraform and return its output; fails at a warning or another exit code."""
        done = subprocess.run(
            ["terraform", arguments[0], "-no-color", *arguments[1:]],
            cwd=self.folder,
            env=own_environment(TF_IN_AUTOMATION="1", TF_INPUT="0")
            | self.environment
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, f"terraform {arguments}: {done.returncode}\n{done.stdout}"
        if arguments[0] != "init":  # which warns of providers that come from a folder
            assert "Warning:" not in done.stdout, done.stdout
        return done.stdout

    def plan(self, *, code: int = 0, **environment: str) -> str:
        return self.run("plan", code=code, **environment)

    def apply(self, *, code: int = 0, **environment: str) -> str:
        return self.run("apply", "-auto-approve", code=code, **environment)

    def destroy(self, *, code: int = 0) -> str:
        return self.run("destroy", "-auto-approve", code=code)

    def changes(self) -> dict[str, set[str]]:
        """Plan; return the addresses by action, without data sources that are only read."""
        changes: dict[str, set[str]] = {}
        for line in map(json.loads, self.run("plan", "-json").splitlines()):
            if line["type"] == "planned_change" and line["change"]["action"] != "read":
                address = line["change"]["resource"]["addr"]
                changes.setdefault(line["change"]["action"], set()).add(address)
        return changes

    def steps(self, command: str) -> list[Step]:
        """Apply or destroy; return the steps in their order."""
        lines = map(json.loads, self.run(command, "-auto-approve", "-json").splitlines())
        return [
            Step(line["type"][6:], line["hook"]["action"], line["hook"]["resource"]["addr"])
            for line in lines
            if line["type"] in ("apply_start", "apply_complete")
            and line["hook"]["action"] != "read"
        ]

    def state(self) -> Any:
        return json.loads((self.folder / "terraform.tfstate").read_text())

    def outputs(self) -> dict[str, Any]:
        return {name: output["value"] for name, output in self.state()["outputs"].items()}

    def resources(self) -> dict[str, dict[str, Any]]:
        """Return the attributes of all resources by address."""
        return {
            address(resource, instance): instance["attributes"]
            for resource in self.state()["resources"]
            if resource["mode"] == "managed"
            for instance in resource["instances"]
        }


def address(resource: dict[str, Any], instance: dict[str, Any]) -> str:
    """Return a resource's address in the configuration."""
    module = f"{resource['module']}." if "module" in resource else ""
    index = f"[{json.dumps(instance['index_key'])}]" if "index_key" in instance else ""
    return f"{module}{resource['type']}.{resource['name']}{index}"


def own_environment(**more: str) -> dict[str, str]:
    """Return an environment without anything of the user's that could matter."""
    return {name: os.environ[name] for name in KEPT if name in os.environ} | more


def new_root(folder: Path, endpoint: str, **settings: object) -> Root:
    """Return an initialized root; only its environment says where moto is."""
    root = Root(folder, **AWS, **KEYS, AWS_ENDPOINT_URL=endpoint)
    root.configure(**settings)
    root.run("init")
    return root


def copy_files(source: Path, folder: Path, *patterns: str) -> Path:
    """Copy files, without a developer's *_override.tf."""
    for pattern in patterns:
        for file in source.glob(pattern):
            if not file.name.endswith("_override.tf"):
                copy = folder / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
    return folder
