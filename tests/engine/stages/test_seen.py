"""What a seen policy says of rows, against one event at a time."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.seen import SeenConfig
from engine.features.state import SeenItems
from engine.kernels.membership import pack_mask
from engine.kernels.membership import test_rows as rows_in  # under its own name pytest would collect it
from engine.stages.seen import SeenPolicy, SeenRows, SeenVerdict, apply_policy, let_back_in
from engine.types import Candidates, EventType, Int64Array, ItemSource

NOW_S = 1_767_000_000
HALF_LIFE_S = 86_400.0
ROWS = 16
Event = tuple[int, EventType, int]

kinds = st.sampled_from([EventType.VIEW, EventType.CLICK, EventType.PURCHASE])
events = st.lists(
    st.tuples(st.integers(-1, ROWS - 1), kinds, st.sampled_from([0, 1, 59, 60, 61, 599, 600, 601])), max_size=20
)


class Items:
    """An item's key is its row and 100."""

    def rows(self, keys: Int64Array) -> Int64Array:
        return np.where(keys >= 100, keys - 100, -1)


def policy(**fields: object) -> SeenPolicy:
    return SeenPolicy.of(SeenConfig.model_validate(fields), HALF_LIFE_S)


def seen_rows(found: list[Event]) -> SeenRows:
    ordered = sorted(found)
    rows, types, ages = ([event[part] for event in ordered] for part in range(3))
    return SeenRows(np.array(rows, np.int64), np.array(types, np.uint8), NOW_S - np.array(ages, np.int64))


def verdict(recent: list[int], share: float = 0.2) -> SeenVerdict:
    found = seen_rows([(row, EventType.VIEW, 0) for row in recent])
    return SeenVerdict(policy(recent_share=share), seen_rows([]), found, np.empty(0, np.int64), np.empty(0, np.float32))


@given(st.integers(0, 100), st.integers(0, 1000))
def test_the_recent_share_of_a_slate_is_rounded_down(hundredths: int, count: int) -> None:
    """0.29 of 100 items is 29, though 0.29 * 100 is a little less in floating point."""
    limit = policy(recent_share=hundredths / 100).recent_limit(count)
    assert limit == Fraction(hundredths, 100) * count // 1


@given(events)
def test_what_is_hidden_and_what_is_recent(found: list[Event]) -> None:
    """Purchases hide for ten minutes, views and purchases make recent for one and twenty."""
    how = policy(hide={"purchase": "10m"}, demote={"view": "1m", "click": 0, "purchase": "20m"})
    latest = {(row, kind): age for row, kind, age in sorted(found, key=lambda event: -event[2])}
    keys = np.array([100 + row if row >= 0 else 7 for row, _ in latest], np.int64)
    seen = SeenItems(
        keys,
        np.array([kind for _, kind in latest], np.uint8),
        NOW_S - np.array(list(latest.values()), np.int64),
        np.ones(len(latest), np.float32),
    )
    may = np.arange(ROWS) % 5 != 0
    eligible = pack_mask(may)
    # The last millisecond of a second is still this second.
    judged = apply_policy(how, Items(), seen, NOW_S * 1000 + 999, eligible)
    known = {(row, kind): age for (row, kind), age in latest.items() if row >= 0 and may[row]}
    hidden = {(row, kind) for (row, kind), age in known.items() if kind == EventType.PURCHASE and age < 600}
    recent = {(row, kind) for (row, kind), age in known.items() if kind == EventType.VIEW and age < 60} | {
        (row, kind) for (row, kind), age in known.items() if kind == EventType.PURCHASE and 600 <= age < 1200
    }
    gone = {row for row, _ in hidden}
    assert set(zip(judged.hidden.rows.tolist(), judged.hidden.event_types.tolist(), strict=True)) == hidden
    assert set(zip(judged.recent.rows.tolist(), judged.recent.event_types.tolist(), strict=True)) == {
        one for one in recent if one[0] not in gone
    }
    for part in (judged.hidden, judged.recent):
        for row, kind, time_s in zip(*(column.tolist() for column in part), strict=True):
            assert time_s == NOW_S - known[row, kind]
    rows = np.arange(ROWS)
    assert rows_in(eligible, rows).tolist() == [bool(may[row]) and row not in gone for row in range(ROWS)]


@given(events, st.integers(0, 20))
def test_what_is_longest_ago_comes_back_first(found: list[Event], limit: int) -> None:
    found = [event for event in found if event[0] >= 0]
    may = np.arange(ROWS) % 3 != 0
    candidates, reasons = let_back_in(seen_rows(found), pack_mask(may), limit)
    last = {row: min(age for other, _, age in found if other == row) for row, _, _ in found if may[row]}
    rows = candidates.rows.tolist()
    assert len(rows) == len(set(rows)) == min(limit, len(last))
    ages = [last[row] for row in rows]
    assert ages == sorted(ages, reverse=True)
    assert not ages or all(age <= ages[-1] for row, age in last.items() if row not in rows)
    assert np.isfinite(candidates.scores).all()
    assert (np.diff(candidates.scores) < 0).all()
    assert set(candidates.sources.tolist()) <= {ItemSource.LET_BACK_IN}
    assert list(reasons) == rows
    for row, kind in reasons.items():
        assert any(event == (row, kind, last[row]) for event in found)


@pytest.mark.parametrize(("recent", "share", "kept"), [
    ([1, 3, 5], 0.2, [0, 1, 2, 3, 4, 6]),
    ([1, 3, 5], 0.3, [0, 1, 2, 3, 4, 5, 6]),
    ([1, 3, 5], 0.0, [0, 2, 4, 6]),
    ([1, 9, 10], 0.1, [0, 1, 2, 3, 4, 5, 6]),
    ([], 0.0, [0, 1, 2, 3, 4, 5, 6]),
])  # fmt: skip
def test_of_the_recent_ones_the_best_stay(recent: list[int], share: float, kept: list[int]) -> None:
    """Of ten places; there are seven candidates, the rows 0 to 6."""
    given_ones = Candidates.of(np.arange(7), np.linspace(1, 0, 7).astype(np.float32), ItemSource.RETRIEVAL)
    assert verdict(recent, share).hold_back(given_ones, 10).rows.tolist() == kept


def test_recent_rows_are_taken_out_where_they_may_be_shown() -> None:
    eligible = pack_mask(np.arange(ROWS) % 2 == 1)
    taken = verdict([1, 2, 3]).take_recent(eligible)
    assert taken.rows.tolist() == [1, 3]
    assert np.flatnonzero(rows_in(eligible, np.arange(ROWS))).tolist() == [5, 7, 9, 11, 13, 15]


def test_factors_only_where_something_is_less_than_it_was() -> None:
    rows = np.arange(4)
    assert verdict([]).factors(rows) is None
    just_seen = verdict([2]).factors(rows)
    assert just_seen is not None
    assert just_seen.tolist() == pytest.approx([1, 1, policy().demotion, 1])
    tired = SeenVerdict(policy(), seen_rows([]), seen_rows([]), np.array([1]), np.array([0.5], np.float32))
    found = tired.factors(rows)
    assert found is not None
    assert found.tolist() == [1, 0.5, 1, 1]
