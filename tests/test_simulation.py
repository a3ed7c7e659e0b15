"""The formula, the costs and the model of outages, compared with numbers that are easy to check."""

import pytest

from local import simulation
from local.simulation import TIMES, Setting, month, play_outage


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> float:
    """A small load, in files a second, to be fast."""
    monkeypatch.setattr(simulation, "STEADY", 4.0)
    return simulation.STEADY


@pytest.mark.parametrize(
    ("setting", "minutes", "aged_out", "dead_letters"),
    [
        pytest.param(Setting(), 55, False, False, id="55 minutes"),
        pytest.param(Setting(5, 10, 900), 55, True, False, id="waits for the timeout after it"),
        pytest.param(Setting(100), 60, False, True, id="received too often, at high concurrency"),
    ],
)
def test_outage_loses_files(
    setting: Setting, minutes: float, aged_out: bool, dead_letters: bool
) -> None:
    lost = play_outage(setting, minutes)
    assert (lost[0] > 0, lost[1] > 0) == (aged_out, dead_letters)


@pytest.mark.parametrize("setting", [Setting(), Setting(5, 100, 360)])
def test_outage_over_an_hour_loses_what_is_too_old_by_then(setting: Setting, steady: float) -> None:
    """And at most a visibility timeout's files besides."""
    too_old = steady * (5_400 - 3_600)
    assert too_old <= sum(play_outage(setting, 90)) <= too_old + steady * setting.visibility_timeout


@pytest.mark.parametrize(("timeout", "receives"), [(180, 20), (360, 10), (900, 5), (1_800, 5)])
def test_message_is_received_for_an_hour_as_in_main_tf(timeout: int, receives: int) -> None:
    assert Setting(visibility_timeout=timeout).max_receives == receives


def test_load_is_that_of_the_formula() -> None:
    assert Setting(20, 100).files_per_second() == 2_000 / TIMES.seconds(100)


def test_cost_grows_with_files_and_falls_with_larger_batches() -> None:
    once, twice = month(10, 10), month(20, 10)
    assert twice == pytest.approx(
        {name: 2 * cost for name, cost in once.items()} | {"fixed": once["fixed"]}
    )
    assert once["S3 GETs"] == pytest.approx(10 * 3_600 * 730 * 0.4 / 1e6)
    assert once["SQS"] == pytest.approx(1.2 * once["S3 GETs"])
    assert sum(month(10, 100).values()) < sum(once.values())


def test_batch_has_the_files_that_arrive_while_its_poller_is_busy() -> None:
    assert Setting().files_per_batch(1 / 60) == 1
    assert Setting().files_per_batch(10_000) == 10
    files = Setting().files_per_batch(250)
    assert 1 < files < 10
    assert files == pytest.approx(250 / 5 * TIMES.seconds(files))
