"""What rules make of candidates, against one item at a time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.kernels.membership import pack_mask
from engine.rules.active import ActiveRules, BoundRule
from engine.rules.schema import Boost, Bury, Cap, MinShare, Pin, Rule, Slot
from engine.rules.selector import Selector
from engine.stages.rules import constraints, place, rescore
from engine.types import Candidates, ItemSource

# Twelve items, three of each brand.
BRANDS = "abcd"
BRAND_OF = np.arange(12, dtype=np.int32) % 4


def items(*brands: str) -> Selector:
    return Selector.model_validate({"brand": list(brands)})


def active(*rules: Rule) -> ActiveRules:
    """As compiled: with the rows that each selects, and the brands that caps group by."""
    bound = []
    for rule in rules:
        selector = None if isinstance(rule, Pin) else rule.items
        chosen = None if selector is None else [BRANDS[brand] in (selector.brand or ()) for brand in BRAND_OF]
        members = None if chosen is None else pack_mask(np.array(chosen))
        bound.append(BoundRule(rule, members, BRAND_OF if isinstance(rule, Cap) else None))
    return ActiveRules.of("home", np.full(2, 0xFF, np.uint8), tuple(bound), frozenset())


def candidates(scores: list[float], rows: list[int]) -> Candidates:
    return Candidates.of(np.array(rows, np.int64), np.array(scores, np.float32), ItemSource.RETRIEVAL)


BOOST = Boost(name="up", action="boost", factor=4.0, items=items("a"))
BURY = Bury(name="down", action="bury", factor=0.25, items=items("b"))
some_rows = st.lists(st.integers(0, 11), unique=True, max_size=12)


@given(some_rows, st.data())
def test_boosts_raise_and_buries_and_demotions_lower_whatever_the_sign(rows: list[int], data: st.DataObject) -> None:
    drawn = [data.draw(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0])) for _ in rows]
    scores = sorted(drawn, reverse=True)
    demotions = [data.draw(st.sampled_from([0.5, 1.0])) for _ in rows] if data.draw(st.booleans()) else None
    rules: list[Rule] = data.draw(st.sampled_from([[], [BOOST], [BOOST, BURY]]))
    factors = {"a": 4.0 if BOOST in rules else 1.0, "b": 0.25 if BURY in rules else 1.0}
    lowered = None if demotions is None else np.array(demotions, np.float32)
    found = rescore(candidates(scores, rows), active(*rules), lowered)
    expected = []
    for position, (row, score) in enumerate(zip(rows, scores, strict=True)):
        factor = factors.get(BRANDS[row % 4], 1.0) * (demotions[position] if demotions is not None else 1.0)
        expected.append((score * factor if score > 0 else score / factor, row))
    expected.sort(key=lambda pair: -pair[0])  # stable: ties keep their order
    assert list(zip(found.scores.tolist(), found.rows.tolist(), strict=True)) == expected


@given(some_rows, st.integers(1, 8), st.data())
def test_pins_and_slots_take_their_positions_once(rows: list[int], slate: int, data: st.DataObject) -> None:
    positions = data.draw(st.lists(st.integers(1, 10), unique=True, min_size=4, max_size=4))
    pins, slots = positions[:2], positions[2:]
    pinned_rows = data.draw(st.lists(st.integers(-1, 11), unique=True, min_size=2, max_size=2))
    rules = active(
        *(Pin(name=f"pin {at}", action="pin", item_id=f"x{at}", position=at) for at in pins),
        *(Slot(name=f"slot {at}", action="slot", items=items("a"), position=at) for at in slots),
    )
    given_ones = candidates([1.0 - 0.05 * place for place in range(len(rows))], rows)
    placed = place(given_ones, rules, np.array(pinned_rows, np.int64), slate)

    kept = [(row, at) for row, at in zip(pinned_rows, pins, strict=True) if row >= 0 and at <= slate]
    expected: list[int | None] = [None] * slate
    for row, at in kept:
        expected[at - 1] = row
    behind = [row for row, _ in kept if row not in rows]
    for at in slots:
        best = [row for row in [*rows, *behind] if row % 4 == 0 and row not in expected]
        if at <= slate and best:
            expected[at - 1] = best[0]
    found = [None if index < 0 else int(placed.candidates.rows[index]) for index in placed.fixed.tolist()]
    assert found == expected
    assert set(placed.fixed[placed.fixed < 0].tolist()) <= {-1}
    assert placed.candidates.rows.tolist() == [*rows, *behind]
    assert placed.candidates.scores[: len(rows)].tolist() == given_ones.scores.tolist()
    # What is not pinned keeps its source, and a pinned item behind the others does not outrank them.
    pinned = {row for row, _ in kept}
    for row, source in zip(placed.candidates.rows.tolist(), placed.candidates.sources.tolist(), strict=True):
        assert source == (ItemSource.PINNED if row in pinned else ItemSource.RETRIEVAL)
    assert placed.candidates.scores[len(rows) :].tolist() == [min(given_ones.scores, default=0.0)] * len(behind)


def test_the_slate_is_told_of_every_cap_and_share() -> None:
    rules = (
        Cap(name="within", action="cap", by="brand", limit=2, window=3, items=items("a", "b")),
        Cap(name="everywhere", action="cap", by="brand", limit=1),
        MinShare(name="share", action="min_share", share=0.3, items=items("c")),
    )
    given_ones = candidates([4, 3, 2, 1, 0], [0, 4, 1, 2, 3])
    found = constraints(given_ones, active(*rules), np.full(6, -1, np.int64))
    assert found.cap_limits.tolist() == [2, 1]
    # A cap without a window is one over the whole slate.
    assert found.cap_windows.tolist() == [3, 6]
    within, everywhere = found.groups.tolist()
    assert within[0] == within[1] != within[2]
    assert within[3:] == [-1, -1]
    assert everywhere[0] == everywhere[1]
    assert len(set(everywhere)) == 4
    assert found.members.tolist() == [[0, 0, 0, 1, 0]]
    assert found.min_shares.tolist() == [0.3]
    assert constraints(given_ones, active(), np.full(6, -1, np.int64)).are_none
