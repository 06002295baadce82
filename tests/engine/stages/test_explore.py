"""A chance for new items: as often as is said, evenly, and with the odds written down."""

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.stages.diversify import MmrDiversifier, SlateConstraints, diversify
from engine.stages.explore import Exploration, explore, new_among
from engine.types import Candidates, ItemSource
from kernels.membership import pack_mask

SLATE = 10


def candidates(count: int = 30) -> Candidates:
    scores = np.linspace(0.9, 0.1, count, dtype=np.float32)
    return Candidates.of(np.arange(count, dtype=np.int64), scores, ItemSource.RETRIEVAL)


def free(slate: int = SLATE) -> np.ndarray:
    return np.full(slate, -1, np.int64)


@given(
    st.integers(0, 40), st.sets(st.integers(0, 60), max_size=20), st.integers(1, SLATE), st.floats(0, 0.5), st.text()
)
def test_nothing_is_lost_and_nothing_comes_twice(
    count: int, new: set[int], slate: int, share: float, seed: str
) -> None:
    known, fixed = candidates(count), free(slate)
    if count > 5 and slate > 2:
        fixed[1] = 5
    found = explore(known, np.array(sorted(new), np.int64), fixed, share, seed)
    rows = found.candidates.rows.tolist()
    assert len(set(rows)) == len(rows)
    assert rows[:count] == known.rows.tolist()
    assert set(rows[count:]) <= new
    places = found.fixed[found.fixed >= 0]
    assert len(set(places.tolist())) == len(places)
    explored = list(np.flatnonzero(found.fixed != fixed))
    assert 0 not in explored
    assert len(explored) <= np.ceil(share * slate)
    for position in explored:
        index = found.fixed[position]
        assert found.candidates.sources[index] == ItemSource.EXPLORATION
        assert rows[index] in new
    assert found.fixed[1:2].tolist() == fixed[1:2].tolist() or fixed[1:2].tolist() == [-1]
    chances = found.propensities(found.candidates.sources[:slate])
    assert ((chances > 0) & (chances <= 1)).all()


@pytest.mark.parametrize("share", [0.05, 0.15, 0.2, 0.24])
@pytest.mark.parametrize("pin", [None, 4])
@pytest.mark.parametrize("count", [30, 9])
def test_shown_as_often_as_the_propensity_says(share: float, pin: int | None, count: int) -> None:
    new, rounds = np.array([100, 101, 102, 103]), 2000
    fixed = free()
    if pin is not None:
        fixed[pin] = count - 1
    shown: Counter[int] = Counter()
    promised: dict[int, set[float]] = defaultdict(set)
    for number in range(rounds):
        found = explore(candidates(count), new, fixed, share, f"user-{number}")
        slate = slate_of(found)
        shown.update(slate.rows.tolist())
        for row, chance in zip(slate.rows.tolist(), found.propensities(slate.sources).tolist(), strict=True):
            promised[row].add(chance)
    for row, chances in promised.items():
        (chance,) = chances
        assert abs(shown[row] / rounds - chance) <= 4.5 * np.sqrt(chance * (1 - chance) / rounds)
    assert len(promised) > len(new)


def slate_of(found: Exploration) -> Candidates:
    """What the real selection makes of it where order is all that counts."""
    constraints = replace(SlateConstraints.none(len(found.candidates), SLATE), fixed=found.fixed)
    vectors = np.zeros((200, 1), np.float32)
    return diversify(MmrDiversifier(), found.candidates, vectors, 0.0, 2.0, SLATE, constraints).candidates


def test_nothing_new_or_no_share_is_no_exploration() -> None:
    known = candidates()
    for found in (
        explore(known, np.empty(0, np.int64), free(), 0.5, "s"),
        explore(known, np.array([100]), free(), 0.0, "s"),
        explore(known, np.array([100]), free(1), 1.0, "s"),
    ):
        assert found.candidates is known
        assert (found.fixed < 0).all()
        assert found.propensities(known.sources[: len(found.fixed)]).tolist() == [1.0] * len(found.fixed)


def test_new_items_that_may_be_shown() -> None:
    eligible = pack_mask(np.array([True] * 16 + [False, True, True, False, True, True, True, True]))
    new = pack_mask(np.array([True, True, False, True, True, False, False, False]))
    assert new_among(eligible, new, 16).tolist() == [17, 20]
