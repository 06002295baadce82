import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.stages.diversify import diversify, relevance
from engine.types import Candidates, ItemSource


def test_probabilities_are_compared_by_their_orders_of_magnitude() -> None:
    np.testing.assert_allclose(relevance(np.array([1e-1, 1e-2, 1e-3], np.float32)), [1.0, 0.5, 0.0], atol=1e-6)


def test_scores_that_may_be_negative_are_compared_as_they_are() -> None:
    np.testing.assert_allclose(relevance(np.array([3.0, 1.0, -1.0], np.float32)), [1.0, 0.5, 0.0], atol=1e-6)


def test_equal_scores_are_equally_relevant() -> None:
    assert relevance(np.full(4, 0.2, np.float32)).tolist() == [1.0] * 4


@given(arrays(np.float32, st.integers(1, 40), elements=st.floats(-100, 100, width=32)))
def test_relevance_keeps_the_order_inside_the_scale_of_cosine(scores: np.ndarray) -> None:
    scaled = relevance(scores)
    assert ((scaled >= 0) & (scaled <= 1)).all()
    assert (np.diff(scaled[np.argsort(scores, kind="stable")]) >= 0).all()


@pytest.mark.parametrize("slate_size", [0, 1, 5, 20])
def test_no_weight_is_the_candidates_own_order(slate_size: int) -> None:
    candidates = Candidates.of(np.arange(10), np.linspace(1, 0.1, 10).astype(np.float32), ItemSource.RETRIEVAL)
    vectors = np.ones((10, 4), np.float32)
    assert diversify(candidates, vectors, 0.0, slate_size).rows.tolist() == list(range(min(slate_size, 10)))
