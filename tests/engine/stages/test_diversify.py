import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.stages.diversify import (
    RELAXED_CAP,
    RELAXED_DUPLICATE,
    Diversifier,
    DppDiversifier,
    MmrDiversifier,
    SlateConstraints,
    diversify,
    relevance,
)
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


def candidates_of(count: int) -> Candidates:
    return Candidates.of(np.arange(count) + 5, np.linspace(1, 0.1, count).astype(np.float32), ItemSource.RETRIEVAL)


@pytest.mark.parametrize("slate_size", [0, 1, 5, 20])
@pytest.mark.parametrize("diversifier", [MmrDiversifier(), DppDiversifier()])
def test_no_weight_is_the_candidates_own_order(diversifier: Diversifier, slate_size: int) -> None:
    candidates = candidates_of(10)
    vectors = np.ones((15, 4), np.float32)
    choice = diversify(
        diversifier, candidates, vectors, 0.0, math.inf, slate_size, SlateConstraints.none(10, slate_size)
    )
    assert choice.positions.tolist() == list(range(min(slate_size, 10)))
    assert choice.candidates.rows.tolist() == candidates.rows[:slate_size].tolist()
    assert len(choice.penalties) == len(choice.relaxed) == min(slate_size, 10)
    assert not choice.penalties.any()
    assert not choice.relaxed.any()


@pytest.mark.parametrize("diversifier", [MmrDiversifier(), DppDiversifier()])
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_no_candidates_no_slate(diversifier: Diversifier, weight: float) -> None:
    choice = diversify(
        diversifier, candidates_of(0), np.ones((15, 4), np.float32), weight, 0.9, 5, SlateConstraints.none(0, 5)
    )
    assert len(choice.candidates) == len(choice.penalties) == len(choice.relaxed) == len(choice.positions) == 0


@pytest.mark.parametrize("diversifier", [MmrDiversifier(), DppDiversifier()])
def test_no_weight_keeps_the_candidates_order_under_constraints_whatever_their_scores(diversifier: Diversifier) -> None:
    """Joined popularity lists are best first, though their shares are not comparable."""
    scores = np.array([0.1, 0.9, 0.5, 0.7], np.float32)
    candidates = Candidates.of(np.arange(4), scores, ItemSource.SEGMENT_POPULARITY)
    constraints = dataclasses.replace(
        SlateConstraints.none(4, 3),
        groups=np.array([[2, 2, 1, 1]], np.int32),
        cap_limits=np.array([1]),
        cap_windows=np.array([3]),
    )
    choice = diversify(diversifier, candidates, np.eye(4, dtype=np.float32), 0.0, math.inf, 3, constraints)
    assert choice.positions.tolist() == [0, 2, 1]
    assert choice.relaxed.tolist() == [0, 0, RELAXED_CAP]


@pytest.mark.parametrize("diversifier", [MmrDiversifier(), DppDiversifier()])
def test_near_duplicates_are_passed_over_even_without_a_weight(diversifier: Diversifier) -> None:
    """Vectors of any length are compared by their directions; the table is a slice of a wider one."""
    table = np.zeros((9, 6), np.float32)
    table[5:, :2] = [[1, 0], [3, 0.1], [0, 2], [0.5, 0.5]]
    choice = diversify(diversifier, candidates_of(4), table[:, :2], 0.0, 0.95, 4, SlateConstraints.none(4, 4))
    assert choice.candidates.rows.tolist() == [5, 7, 8, 6]
    assert choice.relaxed.tolist() == [0, 0, 0, RELAXED_DUPLICATE]
    np.testing.assert_array_equal(choice.candidates.scores, candidates_of(4).scores[choice.positions])


@pytest.mark.parametrize("diversifier", [MmrDiversifier(), DppDiversifier()])
def test_weight_spreads_the_slate_and_says_what_it_cost(diversifier: Diversifier) -> None:
    table = np.eye(15, 4, dtype=np.float32)
    table[5:8] = [1, 0, 0, 0]
    table[8] = [0, 1, 0, 0]
    choice = diversify(diversifier, candidates_of(4), table, 0.5, math.inf, 3, SlateConstraints.none(4, 3))
    assert choice.positions.tolist()[:2] == [0, 3]
    assert choice.penalties[0] == 0.0
    assert choice.penalties[2] > choice.penalties[1]


@pytest.mark.parametrize("slate_size", [3, 5])
def test_constraints_for_another_slate_are_refused(slate_size: int) -> None:
    with pytest.raises(ValueError, match="positions"):
        diversify(
            MmrDiversifier(), candidates_of(4), np.eye(15, 4, dtype=np.float32), 0.0, math.inf, slate_size,
            SlateConstraints.none(4, 4),
        )  # fmt: skip
