import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RecordError
from engine.features.record import pack_session
from engine.features.seen import in_order, pack_seen
from engine.features.state import SeenItems, Session
from engine.stream.state import LiveState, clamped_ms, pack_state, unpack_state, view_state
from engine.types import EventType
from tests.engine.stream.folding import StreamEvent, fold_user, packed_after


def seen_of(entries: list[tuple[int, int, int, int]]) -> SeenItems:
    """Entries of type, seconds, key and count in 256ths, in order."""
    kinds, times, keys, counts = (
        (np.array(column, np.int64) for column in zip(*entries, strict=True))
        if entries
        else (np.empty(0, np.int64) for _ in range(4))
    )
    showings = np.where(kinds == EventType.IMPRESSION, counts / 256, 1).astype(np.float32)
    return in_order(SeenItems(keys, kinds.astype(np.uint8), times, showings))


regions = st.integers(0, 5)
seen_items = st.lists(
    st.tuples(
        st.sampled_from(list(EventType)),
        st.integers(0, 2**32 - 1),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(1, 2**16 - 1),
    ),
    max_size=8,
).map(seen_of)


@settings(deadline=None)
@given(regions, regions, seen_items, st.data())
def test_damaged_bytes_are_refused(events: int, ids: int, seen: SeenItems, data: st.DataObject) -> None:
    places = 12 * data.draw(regions)
    blob = pack_state(
        LiveState(1, 2, 3, 4, bytes(17 * events), bytes(8 * ids), bytes(4 * ids), bytes(places), pack_seen(seen))
    )
    for broken in (bytes([9]) + blob[1:], blob[: data.draw(st.integers(1, 30))], blob + b"x"):
        with pytest.raises(RecordError):
            unpack_state(broken)
        with pytest.raises(RecordError):
            view_state(broken)


@settings(deadline=None)
@given(st.binary(max_size=17).map(lambda event: event.ljust(17, b"-")), st.binary(min_size=8, max_size=8), seen_items)
def test_there_and_back(event: bytes, entry: bytes, seen: SeenItems) -> None:
    state = LiveState(2**64 - 1, -1, 2**32 - 1, 7, 3 * event, entry, entry[:4], entry[:6] * 4, pack_seen(seen))
    assert unpack_state(pack_state(state)) == state
    found = view_state(pack_state(state)).seen
    for name in ("item_keys", "event_types", "times_s", "counts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(seen, name))


def earlier(version: int, session: Session, ids: int, seen: list[int], purchases: int) -> bytes:
    """A state as versions 1 and 2 wrote it."""
    keys = np.array(seen, "<i8").tobytes()
    first = struct.pack("<BIIHHQq", version, 9, purchases, len(session.item_keys), ids, 5, 6)
    if version == 1:
        return first + pack_session(session) + b"an id it" * ids + keys
    return first + b"\1\0" + pack_session(session) + b"an id it" * ids + b"when" * ids + b"twelve bytes" + keys


@pytest.mark.parametrize("version", [1, 2])
def test_a_state_of_an_earlier_version_is_read_as_todays(version: int) -> None:
    session = Session(
        np.array([3, 4, 4]),
        np.array([EventType.VIEW, EventType.PURCHASE, EventType.DWELL], np.uint8),
        np.array([7_000, 8_500, 9_999]),
    )
    for purchases, kind in ((0, EventType.VIEW), (2, EventType.PURCHASE)):
        blob = earlier(version, session, 2, [1, 2, 3, 4], purchases)
        state, view = unpack_state(blob), view_state(blob)
        assert (state.interaction_count, state.purchase_count, state.log_partition, state.offset) == (
            9,
            purchases,
            5,
            6,
        )
        assert (state.session, state.event_ids) == (pack_session(session), b"an id it" * 2)
        # Arrivals are as of the last that is known of the user.
        assert (state.arrivals, state.places) == (
            (struct.pack("<I", 9) * 2, b"") if version == 1 else (b"when" * 2, b"twelve bytes")
        )
        found = {*zip(view.seen.event_types, view.seen.item_keys, view.seen.times_s, strict=True)}
        # The session knows of two of them; the other two are as late as they can be.
        assert found == {
            (EventType.VIEW, 3, 7), (EventType.PURCHASE, 4, 8), (EventType.DWELL, 4, 9), (kind, 1, 9), (kind, 2, 9),
        }  # fmt: skip
        # Folding goes on from there.
        click = StreamEvent(7, 3, EventType.CLICK, 20_000)
        assert packed_after([click], blob) == packed_after([click], pack_state(state))
        for broken in (blob[:-1], blob[:28]):
            with pytest.raises(RecordError):
                view_state(broken)
            assert fold_user(broken, [click]).unreadable == [0]
    nothing = earlier(version, Session.empty(), 0, [], 0)
    assert len(view_state(nothing).seen) == 0


def test_nothing_stored_is_an_empty_state() -> None:
    assert unpack_state(None) == unpack_state(b"") == LiveState.empty()
    for state in (LiveState.empty(), view_state(None), view_state(pack_state(LiveState.empty()))):
        assert (state.interaction_count, state.purchase_count) == (0, 0)
    # The very first place of a log is new to it.
    assert LiveState.empty().offset == -1


def test_a_clock_that_runs_ahead_is_clamped() -> None:
    assert clamped_ms(2_000, 1_500) == 1_500
    assert clamped_ms(1_000, 1_500) == 1_000
