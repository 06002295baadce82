"""A chance for new items: as often as is said, evenly, and with the odds written down."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.stages.explore import explore, new_among
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
    assert 0 <= found.propensity <= 1
    assert 0 <= found.kept_propensity <= 1


def test_shown_as_often_as_the_propensity_says() -> None:
    new, rounds, share = np.array([7, 100, 101, 102]), 4000, 0.15
    shown: dict[int, int] = {}
    replaced = np.zeros(SLATE)
    for number in range(rounds):
        found = explore(candidates(), new, free(), share, f"user-{number}")
        for position in np.flatnonzero(found.fixed >= 0):
            row = int(found.candidates.rows[found.fixed[position]])
            shown[row] = shown.get(row, 0) + 1
            replaced[position] += 1
    expected = share * SLATE / len(new)
    assert found.propensity == expected
    for row in new.tolist():
        assert abs(shown[row] / rounds - expected) < 4 * np.sqrt(expected * (1 - expected) / rounds)
    assert replaced[0] == 0
    given_away = 1 - found.kept_propensity
    assert np.abs(replaced[1:] / rounds - given_away).max() < 5 * np.sqrt(given_away / rounds)


def test_nothing_new_or_no_share_is_no_exploration() -> None:
    known = candidates()
    for found in (
        explore(known, np.empty(0, np.int64), free(), 0.5, "s"),
        explore(known, np.array([100]), free(), 0.0, "s"),
        explore(known, np.array([100]), free(1), 1.0, "s"),
    ):
        assert found.candidates is known
        assert (found.fixed < 0).all()
        assert found.propensity == found.kept_propensity == 1.0


def test_new_items_that_may_be_shown() -> None:
    eligible = pack_mask(np.array([True] * 16 + [False, True, True, False, True, True, True, True]))
    new = pack_mask(np.array([True, True, False, True, True, False, False, False]))
    assert new_among(eligible, new, 16).tolist() == [17, 20]
