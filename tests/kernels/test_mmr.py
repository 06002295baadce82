import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels import mmr
from tests.kernels import naive


def unit_rows(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    vectors = rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    dim=st.sampled_from([1, 3, 16, 64]),
    k=st.integers(0, 70),
    relevance_weight=st.floats(0, 1),
)
@settings(deadline=None, max_examples=150)
def test_every_pick_is_the_greedy_one(seed: int, count: int, dim: int, k: int, relevance_weight: float) -> None:
    rng = np.random.default_rng(seed)
    relevance = rng.uniform(-1, 1, count).astype(np.float32)
    embeddings = unit_rows(rng, count, dim)
    picks = mmr.mmr_slate(frozen(relevance), frozen(embeddings), relevance_weight, k).picks
    assert picks.dtype == np.int64
    assert len(picks) == len(set(picks.tolist())) == min(k, count)
    for step, pick in enumerate(picks.tolist()):
        scores = naive.slate_scores(False, relevance, embeddings, relevance_weight, picks[:step].tolist())
        # Float32 sums of 64 products of unit rows are off by about 1e-6, so that two near ties may swap against the
        # float64 oracle; a swap changes all later steps, so that steps are compared and not whole slates.
        assert scores[pick] >= max(scores[item] for item in range(count) if item not in picks[:step]) - 5e-6


def test_weight_one_keeps_relevance_order() -> None:
    rng = np.random.default_rng(1)
    relevance = rng.permutation(200).astype(np.float32)
    picks = mmr.mmr_slate(relevance, unit_rows(rng, 200, 8), 1.0, 50).picks
    assert picks.tolist() == np.argsort(-relevance)[:50].tolist()


def test_weight_zero_starts_with_the_most_relevant_and_then_spreads() -> None:
    embeddings = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    picks = mmr.mmr_slate(np.array([0.1, 0.9, 0.2, 0.3], np.float32), embeddings, 0.0, 3).picks
    assert picks.tolist() == [1, 2, 3]


def test_duplicates_come_last() -> None:
    embeddings = np.eye(2, dtype=np.float32)[[0, 0, 0, 1]]
    picks = mmr.mmr_slate(np.array([0.9, 0.89, 0.88, 0.5], np.float32), embeddings, 0.5, 4).picks
    assert picks.tolist() == [0, 3, 1, 2]


def test_non_finite_relevance_sinks_to_the_bottom() -> None:
    relevance = np.array([np.nan, 0.1, np.inf, 0.2, -np.inf], np.float32)
    picks = mmr.mmr_slate(relevance, np.eye(5, dtype=np.float32), 0.5, 5).picks
    assert picks.tolist() == [3, 1, 0, 2, 4]
    assert mmr.mmr_slate(relevance, np.eye(5, dtype=np.float32), 0.5, 2).picks.tolist() == [3, 1]


def test_all_relevances_non_finite_give_index_order() -> None:
    assert mmr.mmr_slate(np.full(3, np.nan, np.float32), np.eye(3, dtype=np.float32), 0.5, 5).picks.tolist() == [
        0,
        1,
        2,
    ]


def test_a_non_finite_embedding_is_similar_to_nothing() -> None:
    embeddings = np.eye(3, dtype=np.float32)
    embeddings[1] = np.nan
    picks = mmr.mmr_slate(np.array([0.3, 0.2, 0.1], np.float32), embeddings, 0.5, 3).picks
    assert picks.tolist() == [0, 1, 2]


def test_nothing_to_pick_from() -> None:
    assert mmr.mmr_slate(np.empty(0, np.float32), np.empty((0, 4), np.float32), 0.5, 10).picks.shape == (0,)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_outside_the_unit_interval_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="relevance_weight"):
        mmr.mmr_slate(np.ones(1, np.float32), np.ones((1, 1), np.float32), weight, 1)


def test_mismatched_shapes_and_a_negative_k_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match"):
        mmr.mmr_slate(np.ones(2, np.float32), np.ones((3, 1), np.float32), 0.5, 1)
    with pytest.raises(ValueError, match="k must not"):
        mmr.mmr_slate(np.ones(1, np.float32), np.ones((1, 1), np.float32), 0.5, -1)
