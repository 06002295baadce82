import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.experiments.hashing import BUCKETS
from engine.experiments.layers import NOBODY, allocate

Counts = list[int]


def kept(before: Counts, after: Counts) -> Counts:
    """How many of each variant's buckets are its own before and after."""
    old, new = allocate(before), allocate(after)
    return [int(((old == variant) & (new == variant)).sum()) for variant in range(len(before))]


def most(before: Counts, after: Counts) -> Counts:
    """No way to allocate can keep more."""
    return [min(pair) for pair in zip(before, after, strict=True)]


def counts_of(variants: int, limit: int) -> st.SearchStrategy[Counts]:
    return st.lists(st.integers(0, limit), min_size=variants, max_size=variants).filter(lambda one: sum(one) <= BUCKETS)


@given(st.integers(0, 6).flatmap(lambda variants: counts_of(variants, BUCKETS // max(1, variants))))
def test_everybody_gets_their_number(counts: Counts) -> None:
    owner = allocate(counts)
    assert owner.shape == (BUCKETS,)
    assert [int((owner == variant).sum()) for variant in range(len(counts))] == counts
    assert int((owner == NOBODY).sum()) == BUCKETS - sum(counts)


@given(st.integers(1, 6).flatmap(lambda k: st.tuples(counts_of(k, BUCKETS // k), counts_of(k, BUCKETS // k))))
def test_within_lanes_nobody_moves_who_need_not(change: tuple[Counts, Counts]) -> None:
    assert kept(*change) == most(*change)


@given(st.tuples(counts_of(2, BUCKETS), counts_of(2, BUCKETS)))
def test_of_two_variants_nobody_ever_moves_who_need_not(change: tuple[Counts, Counts]) -> None:
    assert kept(*change) == most(*change)


@given(
    st.integers(3, 6).flatmap(
        lambda k: st.tuples(counts_of(k, BUCKETS // k), st.integers(0, k - 1), st.integers(0, BUCKETS))
    )
)
def test_when_one_of_many_outgrows_its_lane_the_others_keep_theirs_where_there_is_room(
    change: tuple[Counts, int, int],
) -> None:
    before, grows, to = change
    after = [*before]
    after[grows] = min(to, BUCKETS - sum(before) + before[grows])
    assert kept(before, after) == most(before, after)


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="10001 buckets of 10000"):
        allocate([BUCKETS, 1])


def test_nothing_is_shared_between_calls() -> None:
    np.testing.assert_array_equal(allocate([3, 4]), allocate([3, 4]))
    assert allocate([3]) is not allocate([3])
