"""The queueing model and the costs, held to what can be counted by hand.

`make simulate` holds the model to the real handler: that takes wall time, which tests don't.
"""

import math

import pytest

from local.cost import Times, files_a_batch, month
from local.simulation import (
    MAX_AGE_SECONDS,
    MAX_IN_FLIGHT,
    Course,
    Load,
    Service,
    Setting,
    outage_load,
    shortest_outage_that_costs,
    simulate,
)

SERVICE = Service(alone=0.1, a_file=0.004, post=0.05)
TIMES = Times(wait=0.07, cpu=0.003, cpu_file=0.001)


def outcomes(course: Course) -> int:
    """Return how many files have come to an end."""
    return course.submitted + course.aged_out + course.dead_letters


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(Load(burst=5_000), id="burst"),
        pytest.param(Load(rate=5, until=300), id="steady"),
        pytest.param(Load(rate=2, until=300, peak_rate=50, peak=(60, 120)), id="peak"),
        pytest.param(outage_load(1, 600), id="outage"),
        pytest.param(outage_load(1, 4_500), id="outage that costs"),
        pytest.param(Load(burst=100, outage=(0, 90_000)), id="outage without end"),
    ],
)
@pytest.mark.parametrize("setting", [Setting(2), Setting(20, 100, 900)], ids=["small", "large"])
def test_each_file_ends_once(load: Load, setting: Setting) -> None:
    """Submitted, aged out or a dead letter: the three add up to what was written."""
    course = simulate(setting, SERVICE, load)
    assert course.files > 0
    assert outcomes(course) == course.files
    assert course.moments[-1].waiting == 0
    assert course.max_age <= MAX_AGE_SECONDS + max(each for _, each in SERVICE.tries(100))


@pytest.mark.parametrize(
    ("setting", "files"),
    [
        pytest.param(Setting(5, 10), 1_000, id="defaults"),
        pytest.param(Setting(2, 10), 1_000, id="least concurrency"),
        pytest.param(Setting(4, 100), 4_000, id="batches of 100"),
    ],
)
def test_burst_drains_at_the_rate_of_the_formula(setting: Setting, files: int) -> None:
    """Seconds: files / (maximum_concurrency x batch_size) x seconds of an invocation."""
    course = simulate(setting, SERVICE, Load(burst=files))
    rounds = files / (setting.maximum_concurrency * setting.batch_size)
    assert course.drained == pytest.approx(rounds * SERVICE.seconds(setting.batch_size))
    assert course.max_age == course.drained
    assert course.invocations == files / setting.batch_size


def test_lambda_adds_pollers_by_and_by() -> None:
    """Five batches at the same time, then 300 more a minute: 5 a second."""
    course = simulate(Setting(100), Service(30, 0, 0), Load(burst=10_000), 1.0)
    running = {round(moment.at): moment.invocations for moment in course.moments}
    assert running[1] == pytest.approx(5 + 5, abs=2)
    assert running[10] == pytest.approx(5 + 10 * 5, abs=5)
    assert max(running.values()) == 100


def test_short_outage_costs_nothing_but_time() -> None:
    """Ten minutes: every file arrives; the oldest waited for its visibility timeout besides."""
    course = simulate(Setting(), SERVICE, outage_load(1, 600))
    assert course.submitted == course.files
    assert 600 - 180 <= course.max_age <= 600 + 180 + 1


def test_outage_over_an_hour_must_cost() -> None:
    """What was written over an hour before its end is lost to Datadog, whatever the setting."""
    hour_and_half = 5_400
    for setting in (Setting(5), Setting(100), Setting(5, 10, 60)):
        course = simulate(setting, SERVICE, outage_load(1, hour_and_half))
        at_least = hour_and_half - MAX_AGE_SECONDS
        assert at_least <= course.aged_out + course.dead_letters <= at_least + 200


def test_long_visibility_timeout_costs_sooner() -> None:
    """A message that sleeps through the end of an outage ages meanwhile."""
    shortest = [
        shortest_outage_that_costs(Setting(5, 10, timeout), SERVICE, 1) for timeout in (180, 900)
    ]
    assert MAX_AGE_SECONDS >= shortest[0] > shortest[1] > MAX_AGE_SECONDS / 2


def test_late_try_ends_an_outage() -> None:
    """An invocation that begins in an outage and whose second POST comes after it submits."""
    course = simulate(Setting(), Service(0.1, 0, 0.05), Load(burst=10, outage=(0, 0.2)))
    assert course.submitted == 10
    assert course.drained == pytest.approx(0.1 + 0.2 + 0.05)


@pytest.mark.parametrize(("timeout", "receives"), [(180, 20), (360, 10), (900, 5), (1_800, 5)])
def test_dead_letters_come_after_the_hour(timeout: int, receives: int) -> None:
    """main.tf's maxReceiveCount: nothing is given up while Datadog would still take it."""
    setting = Setting(5, 10, timeout)
    assert setting.max_receives == receives
    assert timeout * setting.max_receives >= MAX_AGE_SECONDS


def test_no_more_are_in_flight_than_sqs_lets() -> None:
    """Then nothing is received until some come back, and the books balance all the same."""
    load = Load(burst=MAX_IN_FLIGHT + 30_000, outage=(0, 600))
    course = simulate(Setting(50, 1_000, 400), Service(1, 0, 0.05), load)
    assert course.most_in_flight == MAX_IN_FLIGHT
    assert course.submitted == course.files


def test_cost_is_of_files_and_invocations() -> None:
    """Twice the files cost twice as much beside what is fixed; larger batches cost less."""
    once, twice = (month(TIMES, 512, rate, 10) for rate in (10, 20))
    assert twice.total - twice.fixed == pytest.approx(2 * (once.total - once.fixed))
    assert month(TIMES, 512, 10, 100).total < once.total
    assert once.s3_gets == pytest.approx(10 * 3_600 * 730 * 0.4 / 1e6)
    assert once.sqs == pytest.approx(1.2 * 10 * 3_600 * 730 * 0.4 / 1e6)


def test_requests_dominate_not_compute() -> None:
    """So no code gets complicated for milliseconds: SQS and S3 take most of it."""
    cost = month(TIMES, 512, 1e6 / 3_600, 5)
    assert cost.lambda_compute < 0.2 * (cost.s3_gets + cost.sqs)


@pytest.mark.parametrize(
    ("rate", "concurrency", "files"),
    [
        pytest.param(1 / 60, 5, 1, id="one at a time"),
        pytest.param(10_000, 5, 10, id="more than can be taken"),
    ],
)
def test_batches_fill_with_the_load(rate: float, concurrency: int, files: float) -> None:
    """What comes while a poller is busy is its next batch."""
    assert files_a_batch(TIMES, 512, rate, concurrency, 10) == files


def test_batch_agrees_with_the_time_it_takes() -> None:
    """In between: so many files come to a poller in the time that so many take."""
    files = files_a_batch(TIMES, 512, 250, 5, 10)
    assert 1 < files < 10
    assert math.isclose(files, 250 / 5 * TIMES.invocation(files, 512))
