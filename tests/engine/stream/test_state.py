import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.record import RecordError, unpack_session
from engine.stream.state import (
    Limits,
    LiveState,
    StreamEvent,
    apply,
    clamped_ms,
    event_id_digest,
    is_positive,
    log_partition,
    pack_state,
    unpack_state,
    view_state,
)
from engine.types import EventType

LOG = log_partition("", 3)
LIMITS = Limits(session_events=4, seen_items=3)


def event(offset: int, item: int = 1, kind: int = EventType.CLICK, time_ms: int = 0, name: str = "") -> StreamEvent:
    return StreamEvent(3, offset, "u", event_id_digest(name or str(offset)), item, kind, time_ms, "home")


events = st.lists(
    st.builds(
        event,
        st.just(0),
        st.integers(-2, 5) | st.just(-(2**63)) | st.just(2**63 - 1),
        st.sampled_from(EventType),
        st.integers(0, 20),
        st.sampled_from(["", "a", "b", "c"]),
    ),
    max_size=30,
).map(
    lambda drawn: [
        e._replace(
            offset=2 * i, id_digest=e.id_digest if e.id_digest != event_id_digest("0") else event_id_digest(f"#{i}")
        )
        for i, e in enumerate(drawn)
    ]
)


def fold(stream: list[StreamEvent], state: LiveState | None = None, limits: Limits = LIMITS) -> LiveState:
    return apply(state or LiveState.empty(), LOG, stream, limits)[0]


@settings(max_examples=200)
@given(events, st.lists(st.integers(0, 30)))
def test_any_batching_gives_the_same_bytes_and_takes_the_same_events(
    stream: list[StreamEvent], cuts: list[int]
) -> None:
    whole, taken = apply(LiveState.empty(), LOG, stream, LIMITS)
    state, parts = LiveState.empty(), []
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, stop in itertools.pairwise(bounds):
        state, part = apply(unpack_state(pack_state(state)), LOG, stream[start:stop], LIMITS)
        parts += part
    assert pack_state(state) == pack_state(whole)
    assert parts == taken


@given(events, st.integers(0, 30))
def test_a_replay_changes_nothing(stream: list[StreamEvent], start: int) -> None:
    once = fold(stream)
    again, taken = apply(once, LOG, stream[start:], LIMITS)
    assert again is once
    assert taken == []


@settings(max_examples=200)
@given(events)
def test_the_fold_agrees_with_plain_lists(stream: list[StreamEvent]) -> None:
    ids: list[bytes] = []
    session: list[tuple[int, int, int]] = []
    seen: list[int] = []
    interactions = purchases = 0
    for e in stream:
        if e.event_type == EventType.IMPRESSION or e.id_digest in ids[-4:]:
            continue
        ids.append(e.id_digest)
        session = sorted([*session, (e.item_key, e.time_ms, int(e.event_type))], key=lambda entry: entry[1])[-4:]
        if is_positive(e.event_type):
            interactions += 1
            purchases += e.event_type == EventType.PURCHASE
            seen = [*(key for key in seen if key != e.item_key), e.item_key][-3:]
    state = fold(stream)
    found = unpack_session(state.session)
    assert [*zip(found.item_keys, found.timestamps_ms, found.event_types, strict=True)] == session
    counts = view_state(pack_state(state))
    np.testing.assert_array_equal(counts.seen_keys, np.array(seen, np.int64))
    assert (counts.interaction_count, counts.purchase_count) == (interactions, purchases)


def test_out_of_order_events_are_put_in_time_order_with_ties_in_order_of_arrival() -> None:
    state = fold([event(0, 10, time_ms=5), event(1, 11, time_ms=9), event(2, 12, time_ms=5), event(3, 13, time_ms=1)])
    assert unpack_session(state.session).item_keys.tolist() == [13, 10, 12, 11]
    # Older than all of a full session: counted and seen, but no part of the session.
    late = fold([event(4, 14, time_ms=0)], state)
    assert late.session == state.session
    assert late.interaction_count == 5


def test_impressions_change_nothing() -> None:
    state = fold([event(0)])
    assert fold([event(offset, offset, EventType.IMPRESSION) for offset in range(1, 60)], state) is state


def test_a_recreated_log_starts_again_from_its_first_offset() -> None:
    state = fold([event(7)])
    moved, taken = apply(state, log_partition("new", 3), [event(0, 2, name="x")], LIMITS)
    assert len(taken) == 1
    assert (moved.offset, moved.interaction_count) == (0, 2)


def test_keys_whose_bytes_straddle_two_entries_are_told_apart() -> None:
    # The middle of these two keys' bytes is the third key.
    first, second = int.from_bytes(bytes(range(8)), "little"), int.from_bytes(bytes(range(8, 16)), "little")
    middle = int.from_bytes(bytes(range(4, 12)), "little")
    state = fold([event(0, first), event(1, second), event(2, middle)])
    assert view_state(pack_state(state)).seen_keys.tolist() == [first, second, middle]
    assert view_state(pack_state(fold([event(3, first)], state))).seen_keys.tolist() == [second, middle, first]


def test_a_clock_that_runs_ahead_is_clamped() -> None:
    assert clamped_ms(2_000, 1_500) == 1_500
    assert clamped_ms(1_000, 1_500) == 1_000


@given(events, st.data())
def test_damaged_bytes_are_refused(stream: list[StreamEvent], data: st.DataObject) -> None:
    blob = pack_state(fold(stream))
    for broken in (bytes([9]) + blob[1:], blob[: data.draw(st.integers(1, 28))], blob + b"x"):
        with pytest.raises(RecordError):
            unpack_state(broken)
        with pytest.raises(RecordError):
            view_state(broken)


def test_nothing_stored_is_an_empty_state() -> None:
    assert unpack_state(None) == LiveState.empty()
    assert view_state(None).interaction_count == 0
