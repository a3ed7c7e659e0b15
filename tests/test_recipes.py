"""docs/recipes.md: each mapping has the result that the page shows."""

from __future__ import annotations

import json
import math
import re
from email.utils import formatdate
from pathlib import Path

import pytest

from ddg_mapping import compile_mapping
from ddg_metric_submit import parse
from ddg_ops.screen import utc
from ddg_s3_objects import File
from ddg_settings import read_settings

PAGE = Path(__file__).resolve().parent.parent.joinpath("docs/recipes.md").read_text()
INTRODUCTION, *SECTIONS = PAGE.split("\n## ")
RECIPES = [section for section in SECTIONS if "```jmespath" in section]
UPLOADED = 1575839099


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.split("\n")[0] for recipe in RECIPES])
def test_recipe_has_the_result_shown(recipe: str) -> None:
    blocks = re.findall(r"^```(json|jmespath|text)\n(.*?)^```", recipe, re.MULTILINE | re.DOTALL)
    (_, content), (_, mapping), (_, series) = blocks
    job = recipe.partition("\n")[0].lower()
    settings = read_settings(
        {
            "DATADOG_API_KEY": "x",
            "REJECTED_QUEUE_URL": "https://x",
            "MAX_AGE_SECONDS": "0",
            "JOBS": json.dumps({job: {"mapping": mapping}}),
        }
    )
    file = File("b", f"stats/{job}/1.json", last_modified=formatdate(UPLOADED, usegmt=True))
    lines = [
        f"{utc(sample.timestamp)}  {metric}{{{','.join(sample.tags)}}} = {value}\n"
        for sample in parse(file, content.encode(), settings, math.inf)
        for metric, value in sample.values.items()
    ]
    assert "".join(lines).replace(utc(UPLOADED), f"{'Last-Modified':20}") == series


def test_page_has_enough_recipes_and_valid_examples() -> None:
    """The mappings of the introduction are valid, too."""
    assert len(RECIPES) >= 12
    [settings] = re.findall(r"^```json\n(.*?)^```", INTRODUCTION, re.MULTILINE | re.DOTALL)
    for job in json.loads(settings)["jobs"].values():
        assert compile_mapping(job["mapping"])
