"""Write docs/settings.md from the Terraform files: python -m local.terraform_docs."""

import json
from pathlib import Path
from typing import Any

import hcl2

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "settings.md"

TEXT = """\
# Settings

Made from the Terraform files by `python -m local.terraform_docs`; a test compares them.

## The stack

Give a variable with `-var 'NAME=VALUE'` or in a `terraform.tfvars` (which `.gitignore` knows, since
it may hold keys). Nothing has to be given but a key: `ddg_api_key` or `ddg_api_key_secret_arn`.

{variables}

`terraform output` shows:

{outputs}

### The key in a secret

With the two key variables the keys stand in Terraform's state and in the function's environment. A
secret keeps them out of both:

```sh
aws secretsmanager create-secret --name datadog-api-key --secret-string "$DATADOG_API_KEY"
terraform apply -var 'ddg_api_key_secret_arn=ARN'
```

It costs a cold start some 50 ms ([performance.md](performance.md)) and the way to Secrets Manager
and back; a warm start costs nothing. After you rotated the key nothing is to be done: an invocation
that meets 401 or 403 reads it anew.

### A bucket or a queue of your own

Not offered: the stack makes its own. A bucket has one notification configuration, and whoever
writes one overwrites the other's: a stack that took your bucket would silently end what notifies
you from it today, or be ended by the next apply of the other. Let the job write a second copy
instead; `producer_policy_json` is all it needs.

### The files after `destroy`

`terraform destroy` deletes the files that are still in the bucket: they are notes in transit, and
S3 would delete them after `file_retention_days`. To keep them, apply `force_destroy=false` first.

## The dashboard in Datadog

`dashboard/` is a root of its own: `cd dashboard && terraform init && terraform apply`.

{dashboard_variables}

{dashboard_outputs}
"""


def read_blocks(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Return a root's variables or outputs by name, in the order of its file."""
    with (folder / f"{kind}s.tf").open() as file:
        blocks = hcl2.load(file)[kind]
    return {json.loads(name): block for one in blocks for name, block in one.items()}


def default_of(block: dict[str, Any]) -> str:
    """Return a variable's default as a table shows it."""
    if "default" not in block:
        return "must be given"
    value = block["default"]
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def variables_table(folder: Path) -> str:
    """Return a Markdown table of a root's variables."""
    return table(
        ("variable", "default", "what it is"),
        [
            (f"`{name}`", default_of(block), json.loads(block["description"]))
            for name, block in read_blocks(folder, "variable").items()
        ],
    )


def outputs_table(folder: Path) -> str:
    """Return a Markdown table of a root's outputs."""
    return table(
        ("output", "what it is"),
        [
            (f"`{name}`", json.loads(block["description"]))
            for name, block in read_blocks(folder, "output").items()
        ],
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line).replace("\n", " ") + " |" for line in lines)


def render() -> str:
    """Return the page as the Terraform files would have it."""
    return TEXT.format(
        variables=variables_table(ROOT),
        outputs=outputs_table(ROOT),
        dashboard_variables=variables_table(ROOT / "dashboard"),
        dashboard_outputs=outputs_table(ROOT / "dashboard"),
    )


if __name__ == "__main__":
    PAGE.write_text(render())
