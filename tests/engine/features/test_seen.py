"""Which of somebody's items are stored, against a loop over all of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.features.seen import in_order, most_recent, of_keys_alone, of_session
from engine.features.state import SeenItems, Session
from engine.types import EventType

HOUR_S = 3600
kinds = st.sampled_from(list(EventType))
met = st.lists(st.tuples(kinds, st.integers(0, 20)), max_size=40)
Entry = tuple[int, int, int, float]


def entries(seen: SeenItems) -> list[Entry]:
    """(type, time, item, count) in order."""
    columns = (seen.event_types, seen.times_s, seen.item_keys, seen.counts)
    return [*zip(*(column.tolist() for column in columns), strict=True)]


@given(met, st.integers(1, 6), st.sampled_from([0, 1, 5, 10**9]), st.sampled_from([0, 3]))
def test_the_latest_of_each_type_are_kept(
    events: list[tuple[EventType, int]], limit: int, purchase_h: int, view_h: int
) -> None:
    types, hours = np.array(events, np.int64).reshape(-1, 2).T
    seen = in_order(
        SeenItems(
            np.arange(len(events)), types.astype(np.uint8), hours * HOUR_S, 1.5 + np.arange(len(events), dtype="f4")
        )
    )
    expected: list[Entry] = []
    for kind, remembered_h in ((EventType.VIEW, view_h), (EventType.PURCHASE, purchase_h)):
        own = [entry for entry in entries(seen) if entry[0] == kind]
        if remembered_h:
            expected += [entry for entry in own if own[-1][1] - entry[1] <= remembered_h * HOUR_S][-limit:]
    kept = most_recent(seen, limit, {"purchase": purchase_h * HOUR_S, "view": view_h * HOUR_S})
    assert entries(kept) == expected


@given(st.lists(st.tuples(kinds, st.integers(0, 3), st.integers(0, 20_000)), max_size=30))
def test_of_a_session_the_latest_event_of_each_type_and_item_counts(events: list[tuple[EventType, int, int]]) -> None:
    types, keys, times_ms = np.array(events, np.int64).reshape(-1, 3).T
    latest: dict[tuple[int, int], int] = {}
    for kind, key, time_ms in events:
        if kind != EventType.IMPRESSION:
            latest[kind, key] = max(latest.get((kind, key), 0), time_ms // 1000)
    found = entries(of_session(Session(keys, types.astype(np.uint8), times_ms)))
    assert {(kind, key): time_s for kind, time_s, key, _ in found} == latest
    assert [entry[:2] for entry in found] == sorted(entry[:2] for entry in found)
    assert all(count == 1.0 for *_, count in found)


def test_keys_alone_may_be_purchases_of_whoever_has_bought() -> None:
    keys = np.array([7, 8])
    assert entries(of_keys_alone(keys, 50, 1)) == [(EventType.PURCHASE, 50, 7, 1.0), (EventType.PURCHASE, 50, 8, 1.0)]
    assert entries(of_keys_alone(keys, 50, 0)) == [(EventType.VIEW, 50, 7, 1.0), (EventType.VIEW, 50, 8, 1.0)]
