import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from engine.evaluation.metrics import MeanEstimate, coverage, gains, hit_positions, hits, intra_list_similarity


def random_lists(seed: int, users: int = 40, k: int = 12, items: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ranked = np.stack([rng.permutation(items)[:k] for _ in range(users)]).astype(np.int64)
    for row in ranked:
        row[rng.integers(1, k + 1) :] = -1
    return ranked, rng.integers(0, items, users)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_position_is_the_place_in_the_list(seed: int) -> None:
    ranked, targets = random_lists(seed)
    expected = [[*row, target].index(target) for row, target in zip(ranked.tolist(), targets.tolist(), strict=True)]
    assert hit_positions(ranked, targets).tolist() == [place if place < 12 else -1 for place in expected]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_hit_rate_is_the_share_of_lists_with_the_target(seed: int, k: int) -> None:
    ranked, targets = random_lists(seed)
    expected = np.mean([target in row[:k] for row, target in zip(ranked, targets, strict=True)])
    assert hits(hit_positions(ranked, targets), k).mean() == pytest.approx(expected)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_ndcg_agrees_with_scikit_learn(seed: int) -> None:
    ranked, targets = random_lists(seed)
    truth = np.eye(30)[targets]
    scores = np.full(truth.shape, -1.0)
    for user, row in enumerate(ranked):
        known = row[row >= 0]
        scores[user, known] = np.arange(100, 100 - len(known), -1)
        # The metric counts a missing target as worth nothing; here it falls behind the first ten.
    expected = []
    for user in range(len(targets)):
        inside = targets[user] in ranked[user][:10]
        expected.append(ndcg_score(truth[user : user + 1], scores[user : user + 1], k=10) if inside else 0.0)
    assert gains(hit_positions(ranked, targets), 10).mean() == pytest.approx(np.mean(expected))


def test_standard_error_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(size=400)
    estimate = MeanEstimate.of(values)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.standard_error == pytest.approx(values.std(ddof=1) / 20)


def test_of_one_value_or_none_there_is_no_error_to_speak_of() -> None:
    assert MeanEstimate.of(np.array([3.5])) == MeanEstimate(3.5, 0.0)
    assert MeanEstimate.of(np.empty(0)) == MeanEstimate(0.0, 0.0)
    assert MeanEstimate.of(np.array([1.0, 2.0])).standard_error == pytest.approx(0.5)


def test_intra_list_similarity_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ranked = np.array([[3, 7, 1, -1], [0, 5, -1, -1], [2, -1, -1, -1]])
    expected = []
    for row in ranked[:2]:
        rows = row[row >= 0]
        expected.append(np.mean([vectors[a] @ vectors[b] for a in rows for b in rows if a < b]))
    assert intra_list_similarity(ranked, vectors).mean == pytest.approx(np.mean(expected), rel=1e-5)


def test_coverage_counts_each_item_once() -> None:
    assert coverage(np.array([[0, 1, -1], [1, 2, -1]]), 10) == pytest.approx(0.3)
