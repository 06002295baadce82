"""A chance for new items: as often as is said, evenly, and with the odds written down."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.kernels.membership import pack_mask
from engine.stages.diversify import MmrDiversifier, SlateConstraints, diversify
from engine.stages.explore import Exploration, explore, new_among
from engine.types import Candidates, ItemSource

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
    shown, merit = slate_of(found, slate), slate_of(replace(found, candidates=known, fixed=fixed), slate)
    chances = found.propensities(shown.rows, merit.rows)
    assert ((chances > 0) & (chances <= 1)).all()


@pytest.mark.parametrize("share", [0.05, 0.1, 0.24])
@pytest.mark.parametrize(("count", "pin"), [(30, None), (30, 4), (9, None)])
@pytest.mark.parametrize(
    "new",
    [
        pytest.param([100, 101, 102, 103], id="no new item has merit"),
        pytest.param([2, 100, 101, 102], id="one is far above the cut"),
        pytest.param([9, 100, 101, 102], id="one stands at the cut"),
        pytest.param([7, 8, 9, 10, 11], id="all stand around the cut"),
        pytest.param([10, 12, 100, 101], id="two lie below the cut"),
        pytest.param(list(range(30)), id="all are new"),
    ],
)
def test_shown_as_often_as_the_propensity_says(share: float, pin: int | None, count: int, new: list[int]) -> None:
    """Mean 1/p over all answers is 1 for every item that can be shown: by merit, by chance, or both."""
    rounds = 600
    rows = np.array([row for row in new if row < count or row >= 100])
    fixed = free()
    if pin is not None:
        fixed[pin] = count - 1
    known = candidates(count)
    # What would be shown without exploration is the same for everybody.
    merit = slate_of(explore(known, rows[:0], fixed, share, ""))
    weights: dict[int, list[float]] = defaultdict(list)
    for number in range(rounds):
        found = explore(known, rows, fixed, share, f"user-{number}")
        slate = slate_of(found) if found.by_chance else merit
        for row, chance in zip(slate.rows.tolist(), found.propensities(slate.rows, merit.rows).tolist(), strict=True):
            weights[row].append(1.0 / chance)
    assert set(weights) >= set(rows[rows >= 100].tolist())
    for row, inverse in weights.items():
        (weight,) = {round(each, 6) for each in inverse}
        # An item that is shown with probability p counts 1/p as often as it is shown: mean 1, variance 1/p - 1.
        error = np.sqrt(max(weight - 1.0, 0.0) / rounds)
        assert abs(sum(inverse) / rounds - 1.0) <= 4.0 * error + 1e-6, (row, weight)


def test_chances_do_not_hang_on_who_was_lucky() -> None:
    """Merit and chance are added up: a new item with rank 3 is nearly sure, one without merit is not."""
    found = explore(candidates(), np.array([2, 100]), free(), 0.1, "u")
    rows, merit = slate_of(found).rows, np.arange(SLATE)
    chances = dict(zip(rows.tolist(), found.propensities(rows, merit).tolist(), strict=True))
    assert chances[2] == pytest.approx(1.0)
    # One place goes to one of the two. The last item of merit loses it only where the item without merit is drawn.
    assert chances[9 if 9 in chances else 100] == pytest.approx(0.5)


def test_the_first_candidate_may_be_the_one_that_a_rule_has_put_there() -> None:
    fixed = free()
    fixed[3] = 0
    merit = slate_of(explore(candidates(), np.empty(0, np.int64), fixed, 0.05, "")).rows
    found = explore(candidates(), np.array([100, 101]), fixed, 0.05, "")
    chances = dict(zip(merit.tolist(), found.propensities(merit, merit).tolist(), strict=True))
    # Nine places are free, and every second answer gives one of them away: the ninth by merit stands in the others.
    assert chances[0] == chances[1] == chances[8] == pytest.approx(1.0)
    assert chances[9] == pytest.approx(0.5)


def slate_of(found: Exploration, size: int = SLATE) -> Candidates:
    """What the real selection makes of it where order is all that counts."""
    constraints = replace(SlateConstraints.none(len(found.candidates), size), fixed=found.fixed)
    vectors = np.zeros((200, 1), np.float32)
    return diversify(MmrDiversifier(), found.candidates, vectors, 0.0, 2.0, size, constraints).candidates


def test_nothing_new_or_no_share_is_no_exploration() -> None:
    known = candidates()
    for found in (
        explore(known, np.empty(0, np.int64), free(), 0.5, "s"),
        explore(known, np.array([100]), free(), 0.0, "s"),
        explore(known, np.array([100]), free(1), 1.0, "s"),
    ):
        assert found.candidates is known
        assert (found.fixed < 0).all()
        rows = known.rows[: len(found.fixed)]
        assert found.propensities(rows, rows).tolist() == [1.0] * len(found.fixed)


def test_new_items_that_may_be_shown() -> None:
    eligible = pack_mask(np.array([True] * 16 + [False, True, True, False, True, True, True, True]))
    new = pack_mask(np.array([True, True, False, True, True, False, False, False]))
    assert new_among(eligible, new, 16).tolist() == [17, 20]
