"""The search against systems whose capacity is known."""

import random

from hypothesis import given
from hypothesis import strategies as st

from engine_bench.load_runs import RateSearch


def run(search: RateSearch, capacity: float) -> list[float]:
    """The rates that the search tries of a system that bears `capacity` exactly."""
    tried = []
    while (rate := search.next_rate()) is not None:
        tried.append(rate)
        assert len(tried) <= 40, tried
        search.tell(rate, rate <= capacity)
    return tried


@given(st.floats(4, 3000), st.floats(4, 500), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_capacity_is_found_to_the_precision(capacity: float, first: float, precision: float) -> None:
    search = RateSearch(first, ceiling=4000.0, floor=1.0, precision=precision)
    tried = run(search, capacity)
    assert search.found <= capacity <= search.found * (1 + precision)
    assert search.lowest_failed is not None
    assert search.found < search.lowest_failed <= search.found * (1 + precision)
    assert len(tried) == len(set(tried)) <= 2 + 12 + 12


def test_doubling_comes_first_then_halving() -> None:
    search = RateSearch(50.0, ceiling=4000.0, precision=0.1)
    assert run(search, 230.0) == [50.0, 100.0, 200.0, 400.0, 300.0, 250.0, 225.0, 237.5]
    assert search.found == 225.0


def test_a_system_that_bears_more_than_the_ceiling() -> None:
    search = RateSearch(50.0, ceiling=300.0)
    assert run(search, 10_000.0) == [50.0, 100.0, 200.0, 300.0]
    assert search.found == 300.0
    assert search.lowest_failed is None


def test_a_system_that_bears_nothing() -> None:
    search = RateSearch(50.0, ceiling=300.0, floor=5.0)
    assert run(search, 0.0) == [50.0, 25.0, 12.5, 6.25]
    assert search.found == 0.0


def test_a_failure_outweighs_what_held_above_it() -> None:
    search = RateSearch(50.0, ceiling=1000.0)
    search.tell(200.0, True)
    search.tell(100.0, False)
    search.tell(80.0, True)
    assert search.found == 80.0
    assert search.next_rate() == 90.0


@given(st.floats(20, 500), st.integers(0, 2**32))
def test_a_noisy_system_ends_the_search_all_the_same(capacity: float, seed: int) -> None:
    search, draw = RateSearch(50.0, ceiling=1000.0), random.Random(seed)
    for _ in range(60):
        rate = search.next_rate()
        if rate is None:
            break
        search.tell(rate, rate * draw.uniform(0.8, 1.25) <= capacity)
    assert search.next_rate() is None
    assert search.found <= capacity * 1.25
