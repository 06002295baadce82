"""Schedules are what their names say, and are fixed by their seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_bench.load_driver import Arrivals, constant_offsets, plan, poisson_offsets

KINDS = ("poisson", "constant")


def test_constant_arrivals_are_evenly_spaced() -> None:
    offsets = constant_offsets(rate=40.0, seconds=3.0)
    assert len(offsets) == 120
    assert offsets[0] == 0.0
    np.testing.assert_allclose(np.diff(offsets), 1 / 40.0)


def test_poisson_counts_have_the_mean_and_the_variance_of_their_name() -> None:
    rate, seconds, repeats = 50.0, 2.0, 2_000
    draw = np.random.default_rng(5)
    counts = np.array([len(poisson_offsets(rate, seconds, draw)) for _ in range(repeats)])
    # Four standard errors of the mean, and of the variance, of a Poisson variable with mean 100.
    assert counts.mean() == pytest.approx(100.0, abs=4 * (100.0 / repeats) ** 0.5)
    assert counts.var() == pytest.approx(100.0, abs=4 * 100.0 * (2.0 / repeats) ** 0.5)


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(poisson_offsets(200.0, 200.0, np.random.default_rng(6)))
    # An exponential's mean is its standard deviation; 1 - 1/e of it lies below the mean. Even spacing fails both.
    assert gaps.mean() == pytest.approx(1 / 200.0, rel=0.02)
    assert gaps.std() == pytest.approx(1 / 200.0, rel=0.03)
    assert (gaps < 1 / 200.0).mean() == pytest.approx(1 - np.exp(-1), abs=0.01)


@given(st.sampled_from(KINDS), st.floats(0.5, 300), st.floats(0.1, 5), st.integers(1, 50), st.integers(0, 2**32))
def test_a_plan_is_in_order_in_bounds_and_never_empty(
    arrivals: Arrivals, rate: float, seconds: float, user_count: int, seed: int
) -> None:
    schedule = plan(arrivals, rate, seconds, user_count, seed)
    assert len(schedule) == len(schedule.users) == len(schedule.debug) >= 1
    assert (np.diff(schedule.offsets_s) >= 0).all()
    # Counts are rounded, so that the last even gap may end half of one behind the end.
    assert 0 <= schedule.offsets_s[0] <= schedule.offsets_s[-1] < max(seconds, 0.5 / rate) + 0.5 / rate
    assert ((schedule.users >= 0) & (schedule.users < user_count)).all()


@pytest.mark.parametrize("arrivals", KINDS)
def test_the_seed_decides(arrivals: Arrivals) -> None:
    first, again, other = (plan(arrivals, 100.0, 2.0, 1_000, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.offsets_s, again.offsets_s)
    np.testing.assert_array_equal(first.users, again.users)
    assert not np.array_equal(first.users, other.users)


def test_every_twentieth_request_asks_for_stages() -> None:
    schedule = plan("constant", 100.0, 1.0, 10, 0)
    assert np.flatnonzero(schedule.debug).tolist() == [19, 39, 59, 79, 99]
