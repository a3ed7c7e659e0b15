"""The real terraform CLI on a copy of a root's files."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from tests.terraform.cloud import ADMINISTRATOR, REGION

PROJECT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "TF_CLI_CONFIG_FILE")  # nothing else gets in
SETTINGS = "stack.auto.tfvars.json"
STACK = ("*.tf", "*.zip", "tests/*.tftest.hcl")

AWS = {
    "AWS_REGION": REGION,
    "AWS_ACCESS_KEY_ID": ADMINISTRATOR["AccessKeyId"],
    "AWS_SECRET_ACCESS_KEY": ADMINISTRATOR["SecretAccessKey"],
}
KEYS = {"TF_VAR_ddg_api_key": "X", "TF_VAR_ddg_app_key": "X"}


class Step(NamedTuple):
    """One line of what apply or destroy did, in its order."""

    event: str  # "start" or "complete"
    action: str  # "create", "update" or "delete"
    address: str


class Root:
    """A Terraform root in a folder of its own, its settings in the one file for them."""

    def __init__(self, folder: Path, **environment: str) -> None:
        """Take a folder with the files, and what everyone in it has exported."""
        self.folder = folder
        self.environment = environment

    def configure(self, **settings: object) -> None:
        """Write the settings' file: these are changed, the others stay."""
        file = self.folder / SETTINGS
        before = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**before, **settings}))

    def unset_keys(self) -> None:
        """Export no keys any more."""
        self.environment = {k: v for k, v in self.environment.items() if k not in KEYS}

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run terraform and return what it printed.

        Fails unless it ends with the code, and for a warning too.
        """
        kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        done = subprocess.run(
            ["terraform", arguments[0], "-no-color", *arguments[1:]],
            cwd=self.folder,
            env={**kept, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0"} | self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, f"terraform {arguments}: {done.returncode}\n{done.stdout}"
        if arguments[0] != "init":  # which warns of providers that come from a folder
            assert "Warning:" not in done.stdout, done.stdout
        return done.stdout

    def plan(self, *, code: int = 0, **environment: str) -> str:
        """Plan; return what was printed."""
        return self.run("plan", code=code, **environment)

    def apply(self, *, code: int = 0, **environment: str) -> str:
        """Apply; return what was printed."""
        return self.run("apply", "-auto-approve", code=code, **environment)

    def destroy(self, *, code: int = 0) -> str:
        """Destroy as somebody who has the settings and no key; return what was printed."""
        return self.run("destroy", "-auto-approve", code=code)

    def changes(self) -> dict[str, set[str]]:
        """Plan; return the addresses of what would be done, by action. To read is to do nothing."""
        lines = map(json.loads, self.run("plan", "-json").splitlines())
        changes: dict[str, set[str]] = {}
        for line in lines:
            if line["type"] == "planned_change" and line["change"]["action"] != "read":
                address = line["change"]["resource"]["addr"]
                changes.setdefault(line["change"]["action"], set()).add(address)
        return changes

    def steps(self, command: str) -> list[Step]:
        """Apply or destroy; return what was begun and ended, in its order."""
        lines = self.run(command, "-auto-approve", "-json").splitlines()
        hooks = [(line["type"], line["hook"]) for line in map(json.loads, lines) if "hook" in line]
        return [
            Step(kind.removeprefix("apply_"), hook["action"], hook["resource"]["addr"])
            for kind, hook in hooks
            if kind in ("apply_start", "apply_complete") and hook["action"] != "read"
        ]

    def state(self) -> Any:
        """Return what the state file holds."""
        return json.loads((self.folder / "terraform.tfstate").read_text())

    def forget_indices(self, kind: str) -> None:
        """Make a state of before: take the indices from resources whose types begin so."""
        state = self.state()
        for resource in state["resources"]:
            if resource["type"].startswith(kind):
                for instance in resource["instances"]:
                    instance.pop("index_key", None)
        (self.folder / "terraform.tfstate").write_text(json.dumps(state))

    def outputs(self) -> dict[str, Any]:
        """Return the outputs."""
        return {name: output["value"] for name, output in self.state()["outputs"].items()}

    def resources(self) -> dict[str, dict[str, Any]]:
        """Return the attributes of all that was made, by address."""
        return {
            address(resource, instance): instance["attributes"]
            for resource in self.state()["resources"]
            if resource["mode"] == "managed"
            for instance in resource["instances"]
        }


def address(resource: dict[str, Any], instance: dict[str, Any]) -> str:
    """Return where a resource of the state stands in the configuration."""
    module = f"{resource['module']}." if "module" in resource else ""
    index = f"[{json.dumps(instance['index_key'])}]" if "index_key" in instance else ""
    return f"{module}{resource['type']}.{resource['name']}{index}"


def new_root(folder: Path, endpoint: str, **settings: object) -> Root:
    """Return a root of a folder's files that goes to an endpoint for AWS; it has found providers.

    As a person has it: what is AWS's is exported, and no file says where moto is.
    """
    root = Root(folder, **AWS, **KEYS, AWS_ENDPOINT_URL=endpoint)
    root.configure(**settings)
    root.run("init")
    return root


def copy_files(source: Path, folder: Path, *patterns: str) -> Path:
    """Copy what the patterns match, but no override: a developer may have one."""
    for pattern in patterns:
        for file in source.glob(pattern):
            if not file.name.endswith("_override.tf"):
                copy = folder / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
    return folder
