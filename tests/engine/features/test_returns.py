"""A return takes back one purchase: the latest before it that still stands, of the same user and item."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from engine.data.build import build_dataset
from engine.data.tables import make_tables
from engine.features.returns import pair_returns, taken_back

BUY, SEND_BACK, LOOK = "purchase", "return", "click"


def back(*kinds: str, users: tuple[int, ...] | None = None, rows: tuple[int, ...] | None = None) -> list[int]:
    names = np.array(kinds)
    users = np.array(users or (0,) * len(kinds))
    items = np.array(rows or (0,) * len(kinds))
    return np.flatnonzero(taken_back(users, items, names == BUY, names == SEND_BACK)).tolist()


def test_the_latest_purchase_that_still_stands() -> None:
    assert back(BUY, LOOK, BUY, SEND_BACK) == [2]
    assert back(BUY, BUY, SEND_BACK, SEND_BACK) == [0, 1]
    assert back(SEND_BACK, BUY) == []
    assert back(BUY, SEND_BACK, SEND_BACK, BUY) == [0]


def test_nobody_else_and_nothing_else() -> None:
    assert back(BUY, BUY, SEND_BACK, users=(0, 1, 0)) == [0]
    assert back(BUY, BUY, SEND_BACK, rows=(5, 3, 5)) == [0]
    assert back(BUY, SEND_BACK, users=(0, 1), rows=(1, 0)) == []


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([BUY, SEND_BACK, LOOK]))))
def test_what_stands_is_what_was_bought_less_what_came_back(events: list[tuple[int, int, str]]) -> None:
    users, rows = (np.array([event[part] for event in events], np.int32) for part in (0, 1))
    kinds = np.array([event[2] for event in events])
    bought, sent_back = pair_returns(users, rows, kinds == BUY, kinds == SEND_BACK)
    assert len(set(bought.tolist())) == len(bought) == len(set(sent_back.tolist()))
    assert (bought < sent_back).all()
    stands = np.isin(np.arange(len(events)), bought, invert=True) & (kinds == BUY)
    for user in range(3):
        for row in range(3):
            held = 0
            for place in np.flatnonzero((users == user) & (rows == row)).tolist():
                held = held + 1 if kinds[place] == BUY else max(0, held - 1) if kinds[place] == SEND_BACK else held
            assert stands[(users == user) & (rows == row)].sum() == held


def test_no_part_of_training_reads_a_return_or_what_it_took_back() -> None:
    """As case 07-returned-goods-count-as-bought has it, with the type that returns have; and the same in its words."""
    rows = [("u", "shoe", "click", None), ("u", "shoe", "purchase", 25.0), ("u", "sock", "purchase", 3.0)]
    refund = [("u", "shoe", "return", 25.0)]

    def positive(events: list[tuple[str, str, str, float | None]]) -> list[tuple[int, int]]:
        frame = pl.DataFrame(events, ["user_id", "item_id", "event_type", "value"], orient="row")
        frame = frame.with_columns(timestamp_ms=1_764_000_000_000 + pl.int_range(pl.len()))
        kept = build_dataset(make_tables(frame, pl.DataFrame({"item_id": ["shoe", "sock"], "title": "t"}))).histories()
        return [*zip(kept.rows.tolist(), kept.event_types.tolist(), strict=True)]

    assert positive([*rows, *refund]) == positive([rows[0], rows[2]])
    assert positive([*rows, *refund * 80]) == positive([rows[0], rows[2]])
