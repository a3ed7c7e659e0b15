"""The formula, the costs and the model of outages, held to what can be counted by hand."""

import pytest

from local import simulation
from local.cost import files_per_batch, month
from local.simulation import TIMES, Losses, Setting, play_outage


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> float:
    """A load that is played fast, in files a second."""
    monkeypatch.setattr(simulation, "STEADY", 4.0)
    return simulation.STEADY


@pytest.mark.parametrize("setting", [Setting(2), Setting(), Setting(100), Setting(100, 10, 900)])
def test_half_an_hour_costs_nothing(setting: Setting) -> None:
    """Every file arrives, whatever the setting."""
    assert play_outage(setting, 30) == Losses(0, 0)


@pytest.mark.parametrize("setting", [Setting(), Setting(5, 100, 360)])
def test_outage_over_an_hour_must_cost(setting: Setting, steady: float) -> None:
    """What was written over an hour before its end is lost to Datadog, and not much besides."""
    too_old = steady * (5_400 - 3_600)
    assert too_old <= sum(play_outage(setting, 90)) <= too_old + steady * setting.visibility_timeout


def test_long_visibility_timeout_costs_sooner() -> None:
    """A message that sleeps through the end of an outage ages meanwhile."""
    assert play_outage(Setting(), 55) == Losses(0, 0)
    assert play_outage(Setting(visibility_timeout=900), 55).aged_out > 0


def test_much_concurrency_makes_dead_letters() -> None:
    """Every message is received on the second, and for the last time before its hour is over."""
    aged_out, dead_letters = play_outage(Setting(100), 60)
    assert (aged_out, dead_letters > 0) == (0, True)


@pytest.mark.parametrize(("timeout", "receives"), [(180, 20), (360, 10), (900, 5), (1_800, 5)])
def test_nothing_is_given_up_within_the_hour(timeout: int, receives: int) -> None:
    """main.tf's maxReceiveCount: Datadog wouldn't take what becomes a dead letter."""
    assert Setting(visibility_timeout=timeout).max_receives == receives


def test_burst_drains_at_the_rate_of_the_formula() -> None:
    """By five pollers from the start; of a hundred, 95 come by and by, in 19 seconds."""
    assert Setting().drain_seconds(TIMES, 500) == pytest.approx(10 * TIMES.seconds(10))
    late = Setting(100).drain_seconds(TIMES, 100_000) - 100 * TIMES.seconds(10)
    assert late == pytest.approx(0.95 * 19 / 2)


def test_cost_is_of_files_and_invocations() -> None:
    """Twice the files cost twice as much beside what is fixed; larger batches cost less."""
    once, twice = month(TIMES, 10, 10), month(TIMES, 20, 10)
    assert twice[:-1] == pytest.approx([2 * each for each in once[:-1]])
    assert once.s3_gets == pytest.approx(10 * 3_600 * 730 * 0.4 / 1e6)
    assert once.sqs == pytest.approx(1.2 * once.s3_gets)
    assert sum(month(TIMES, 10, 100)) < sum(once)


@pytest.mark.parametrize(("rate", "files"), [(1 / 60, 1), (10_000, 10)], ids=["alone", "full"])
def test_batches_fill_with_the_load(rate: float, files: float) -> None:
    """What comes while a poller is busy is its next batch, up to the batch's size."""
    assert files_per_batch(TIMES, rate, 5, 10) == files


def test_batch_agrees_with_the_time_it_takes() -> None:
    """In between: so many files come to a poller in the time that so many take."""
    files = files_per_batch(TIMES, 250, 5, 10)
    assert 1 < files < 10
    assert files == pytest.approx(250 / 5 * TIMES.seconds(files))
