"""Nothing is found where there is nothing, and what is there is covered, over many simulated experiments."""

from collections.abc import Iterator

import numpy as np
import pytest

from engine.experiments.analysis.compare import covariate_columns
from engine.experiments.analysis.metrics import BEFORE, METRICS, TOTALS, Metric
from engine.experiments.analysis.significance import anytime_interval, anytime_p_value
from engine.experiments.analysis.statistics import (
    Estimate,
    Interval,
    Moments,
    adjusted_ratios,
    difference_interval,
    lift_interval,
    log_lift,
    p_value,
    ratio,
)
from engine.types import Float64Array
from tests.engine.experiments.analysis.users import COLUMNS, Crowd, Habits, behave, crowd

EXPERIMENTS = 400
USERS = 2_000
LIFT = 0.15
DAYS = 14


@pytest.fixture(scope="module")
def alike() -> tuple[Crowd, Crowd]:
    """Two variants without any difference."""
    return crowd(11, EXPERIMENTS, USERS), crowd(12, EXPERIMENTS, USERS)


@pytest.fixture(scope="module")
def two(alike: tuple[Crowd, Crowd]) -> tuple[Moments, Moments]:
    return moments(alike[0]), moments(alike[1])


@pytest.fixture(scope="module")
def better() -> Moments:
    return moments(crowd(13, EXPERIMENTS, USERS, lift=LIFT))


def moments(users: Crowd) -> Moments:
    """Of the totals and what was before, as the report has them."""
    places = [COLUMNS.index(name) for name in TOTALS]
    # In the order of BEFORE: clicks, sessions, purchases, revenue, time.
    named = ("clicks", "sessions", "converted_sessions", "revenue", "session_s")
    assert len(named) == len(BEFORE)
    before = users.before[..., [COLUMNS.index(name) for name in named]]
    return Moments.of(np.concatenate([users.values[..., places], before], axis=-1))


def ratios(metric: Metric, of: Moments) -> Estimate:
    return ratio(of.columns([TOTALS.index(metric.numerator), TOTALS.index(metric.denominator)]))


def cuped(metric: Metric, treated: Moments, held: Moments) -> Estimate:
    places = [TOTALS.index(metric.numerator), TOTALS.index(metric.denominator), *covariate_columns(metric)]
    adjusted = adjusted_ratios(treated.columns(places), held.columns(places))
    return log_lift(adjusted.treatment, adjusted.control)


def missed(interval: Interval, truth: float) -> float:
    """The share of intervals that leave the truth out."""
    return float(np.mean((interval.low > truth) | (interval.high < truth)))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
class TestNoDifference:
    def test_five_percent_are_found_by_chance(self, metric: Metric, two: tuple[Moments, Moments]) -> None:
        control, treatment = (ratios(metric, variant) for variant in two)
        lift = log_lift(treatment, control)
        share = missed(lift_interval(lift, 0.05), 0.0)
        assert 0.02 <= share <= 0.08
        assert float(np.mean(p_value(lift) < 0.05)) == share
        assert 0.02 <= missed(difference_interval(treatment, control, 0.05), 0.0) <= 0.08

    def test_the_time_before_changes_nothing_but_the_noise(self, metric: Metric, two: tuple[Moments, Moments]) -> None:
        held, treated = two
        adjusted = cuped(metric, treated, held)
        assert 0.02 <= missed(lift_interval(adjusted, 0.05), 0.0) <= 0.08
        plain = log_lift(ratios(metric, treated), ratios(metric, held))
        assert np.mean(adjusted.variance / plain.variance) < 1.0
        # What the formula says of the variance shows in the estimates themselves.
        assert np.var(adjusted.value) / np.mean(adjusted.variance) == pytest.approx(1.0, abs=0.35)


def test_a_request_is_no_unit(alike: tuple[Crowd, Crowd]) -> None:
    """The mistake that the delta method is against: taking each request or session for a unit of its own."""
    naive = []
    for users in alike:
        clicked, requests = users.column("clicked_requests").sum(axis=1), users.column("requests").sum(axis=1)
        share = clicked / requests
        naive.append(Estimate(share, share * (1 - share) / requests))
    assert missed(lift_interval(log_lift(naive[1], naive[0]), 0.05), 0.0) > 0.10


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_true_lift_is_covered(metric: Metric, two: tuple[Moments, Moments], better: Moments) -> None:
    plain = log_lift(ratios(metric, better), ratios(metric, two[0]))
    assert missed(lift_interval(plain, 0.05), LIFT) <= 0.07
    assert missed(lift_interval(cuped(metric, better, two[0]), 0.05), LIFT) <= 0.07
    assert missed(anytime_interval(plain, 0.05), LIFT) <= 0.05


def days_of(seed: int, users: int) -> Iterator[Float64Array]:
    """Cumulative totals at the end of each day, of users who come again and again."""
    random = np.random.default_rng(seed)
    habits = Habits.draw(random, EXPERIMENTS, users)
    total = np.zeros((EXPERIMENTS, users, len(COLUMNS)))
    for _ in range(DAYS):
        total += behave(random, habits, time=1.0 / DAYS)
        yield total


def test_looking_every_day() -> None:
    """Whoever stops at the first significant day is wrong too often, unless the interval is made for it."""
    fixed = np.zeros((len(METRICS), EXPERIMENTS), bool)
    anytime, left_out = fixed.copy(), fixed.copy()
    for control, treatment in zip(days_of(21, 500), days_of(22, 500), strict=True):
        held, treated = Moments.of(control), Moments.of(treatment)
        for place, metric in enumerate(METRICS):
            lift = log_lift(ratios(metric, treated), ratios(metric, held))
            fixed[place] |= p_value(lift) < 0.05
            interval = anytime_interval(lift, 0.05)
            left_out[place] |= (interval.low > 0) | (interval.high < 0)
            anytime[place] |= anytime_p_value(lift) < 0.05
    assert (anytime == left_out).all()
    assert (anytime.mean(axis=1) <= 0.08).all()
    assert (fixed.mean(axis=1) > 0.10).all()
