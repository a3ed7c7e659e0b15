"""The campaign goes red where the submitter is wrong: ten ways to break it, told by the books."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from local.trial import SOURCE, Outcome
from tests.campaigns import SEEDS, carry_out

SUBMIT, SERIES, STATS = "ddg_metric_submit.py", "ddg_series_api.py", "ddg_stats_file.py"

pytestmark = pytest.mark.xdist_group("campaign")


class Patch(NamedTuple):
    """A way to break the submitter: in a file, what takes the place of what."""

    id: str
    file: str
    old: str
    new: str


PATCHES = [
    Patch(
        "acknowledge-on-403",
        SUBMIT,
        "if answer.status_code == 202:",
        "if answer.status_code in (202, 403):",
    ),
    Patch(
        "acknowledge-without-an-answer",
        SUBMIT,
        "if answer.status_code == 202:",
        "if answer.status_code in (202, 0):",
    ),
    Patch(
        "drop-a-record", SUBMIT, 'in notification["Records"]]', 'in notification["Records"][:1]]'
    ),
    Patch(
        "swallow-the-reject-failure",
        SUBMIT,
        "                if delivery.refused:\n",
        "                if not delivery:\n",
    ),
    Patch(
        "lose-a-split-half",
        SUBMIT,
        "                parts += reversed(halves)",
        """                parts += halves[:1]
                for delivery, sample in [entry for half in halves[1:] for entry in half]:
                    delivery.accepted += len(sample.values)""",
    ),
    Patch(
        "refuse-what-s3-forbids",
        SUBMIT,
        'if status == 404 and code != "NoSuchBucket":',
        'if status in (403, 404) and code != "NoSuchBucket":',
    ),
    Patch(
        "send-what-is-too-old",
        STATS,
        "if max_age and now - timestamp > max_age:",
        "if max_age and now - timestamp > 2 * max_age:",
    ),
    Patch(
        "forget-a-slow-object",
        SUBMIT,
        """        except AWS_ERRORS as error:
            delivery.retried = f"S3 can't be read ({type(error).__name__})\"""",
        """        except AWS_ERRORS:
            delivery.points = 0""",
    ),
    Patch(
        "refuse-a-neighbour-of-a-retry",
        SUBMIT,
        'if m.has("Refused") and not m.has("Retried")]',
        'if m.has("Refused")]',
    ),
    Patch(
        "round-values",
        SERIES,
        "append((sample.timestamp, value))",
        "append((sample.timestamp, round(value)))",
    ),
]


def copy_source(folder: Path) -> Path:
    """Copy the functions' source."""
    for file in SOURCE.glob("ddg_*.py"):
        shutil.copy(file, folder)
    return folder


def run_until_red(source: Path) -> Iterator[Outcome]:
    """Carry out seeds up to the first whose books don't add up."""
    for seed in SEEDS[:3]:
        outcome = carry_out(seed, source)
        yield outcome
        if outcome.faults:
            return


def test_unpatched_copy_passes(tmp_path: Path) -> None:
    """The harness itself turns nothing red."""
    outcomes = list(run_until_red(copy_source(tmp_path)))
    assert [outcome.faults for outcome in outcomes] == [[], [], []]


@pytest.mark.parametrize("patch", [pytest.param(patch, id=patch.id) for patch in PATCHES])
def test_patch_is_found_by_the_books(patch: Patch, tmp_path: Path) -> None:
    """No exception tells of it: the books themselves don't add up."""
    file = copy_source(tmp_path) / patch.file
    source = file.read_text()
    assert source.count(patch.old) == 1
    file.write_text(source.replace(patch.old, patch.new))
    assert any(outcome.faults for outcome in run_until_red(tmp_path))
