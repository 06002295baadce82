import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.kernels import topk
from tests.kernels import naive


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@given(scores=hnp.arrays(np.float32, st.integers(0, 80), elements=st.floats(width=32)), k=st.integers(0, 90))
@settings(deadline=None, max_examples=300)
def test_top_k_matches_the_oracle_on_any_floats(scores: np.ndarray, k: int) -> None:
    positions = topk.top_k(frozen(scores), k)
    assert positions.dtype == np.int64
    assert positions.tolist() == naive.top_k(scores, k)


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 600))
@settings(deadline=None, max_examples=30)
def test_top_k_is_stable_among_many_ties(seed: int, k: int) -> None:
    scores = np.random.default_rng(seed).integers(-3, 3, 500).astype(np.float32)
    assert topk.top_k(scores, k).tolist() == np.argsort(-scores, kind="stable")[:k].tolist()


@pytest.mark.parametrize(
    "scores",
    [
        np.random.default_rng(0).standard_normal(5_000).astype(np.float32),
        np.random.default_rng(1).standard_cauchy(5_000).astype(np.float32),  # nearly all in one bucket
        np.full(5_000, 0.25, np.float32),
        np.where(np.arange(5_000) % 2 == 0, -0.0, 0.0).astype(np.float32),
        np.where(np.arange(5_000) < 4_900, np.nan, np.arange(5_000)).astype(np.float32),
        np.where(np.arange(5_000) == 7, 3.4e38, np.where(np.arange(5_000) == 9, -3.4e38, 1.0)).astype(np.float32),
        (np.arange(5_000) * np.float32(1e-45)).astype(np.float32),
        np.where(np.arange(5_000) % 3 == 0, np.inf, np.arange(5_000) % 7).astype(np.float32),
    ],
    ids=["normal", "outliers", "equal", "zeros", "mostly NaN", "a range past float32", "denormal", "infinite"],
)
@pytest.mark.parametrize("k", [1, 10, 99, 101, 1_000])
def test_few_of_many_are_those_of_a_full_sort(scores: np.ndarray, k: int) -> None:
    assert topk.top_k(frozen(scores), k).tolist() == naive.top_k(scores, k)


def test_non_finite_scores_sink_in_position_order_and_zeros_tie() -> None:
    scores = np.array([np.inf, np.nan, -0.0, 0.0, -np.inf, -3e38, 1e-45], np.float32)
    assert topk.top_k(scores, 7).tolist() == [6, 2, 3, 5, 0, 1, 4]


def test_a_negative_k_is_refused() -> None:
    with pytest.raises(ValueError, match="k must not"):
        topk.top_k(np.ones(2, np.float32), -1)


@given(
    seed=st.integers(0, 2**32 - 1),
    row_count=st.integers(0, 100),
    limit=st.integers(-1, 40),
    dtype=st.sampled_from([np.int32, np.int64]),
)
@settings(deadline=None)
def test_first_eligible_matches_the_oracle(seed: int, row_count: int, limit: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(row_count), [-1, -1, 10_000]]).astype(dtype)
    bitmap = rng.integers(0, 256, -(-row_count // 8)).astype(np.uint8)
    skip_rows = rng.integers(-1, row_count + 1, 10)
    positions = topk.first_eligible(frozen(order), frozen(bitmap), limit, frozen(skip_rows))
    assert positions.dtype == np.int64
    assert positions.tolist() == naive.first_eligible(order, bitmap, limit, skip_rows)


def test_first_eligible_of_nothing() -> None:
    none = np.empty(0, np.int64)
    assert topk.first_eligible(none, np.empty(0, np.uint8), 5).tolist() == []
    assert topk.first_eligible(np.array([2, 0, 1]), np.array([0b101], np.uint8), 5).tolist() == [0, 1]


a_list = st.lists(st.floats(-5, 5, width=32), max_size=30)


@given(a_list, a_list, st.integers(0, 70))
@settings(deadline=None)
def test_merging_is_sorting_both(first: list[float], more: list[float], k: int) -> None:
    ours, theirs = np.array(sorted(first, reverse=True), np.float32), np.array(more, np.float32)
    rows, scores = topk.merge_top(np.arange(len(ours)), ours, np.arange(len(theirs)) + 100, theirs, k)
    both = np.concatenate([ours, theirs])
    names = np.concatenate([np.arange(len(ours)), np.arange(len(theirs)) + 100])
    order = np.argsort(-both, kind="stable")[:k]
    assert rows.tolist() == names[order].tolist()
    np.testing.assert_array_equal(scores, both[order])
