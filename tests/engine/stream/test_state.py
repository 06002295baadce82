import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.record import RecordError
from engine.stream.state import LiveState, clamped_ms, pack_state, unpack_state, view_state

regions = st.integers(0, 5)


@settings(deadline=None)
@given(regions, regions, regions, st.data())
def test_damaged_bytes_are_refused(events: int, ids: int, seen: int, data: st.DataObject) -> None:
    places = 12 * data.draw(regions)
    blob = pack_state(
        LiveState(1, 2, 3, 4, bytes(17 * events), bytes(8 * ids), bytes(4 * ids), bytes(places), bytes(8 * seen))
    )
    for broken in (bytes([9]) + blob[1:], blob[: data.draw(st.integers(1, 30))], blob + b"x"):
        with pytest.raises(RecordError):
            unpack_state(broken)
        with pytest.raises(RecordError):
            view_state(broken)


@settings(deadline=None)
@given(st.binary(max_size=17).map(lambda event: event.ljust(17, b"-")), st.binary(min_size=8, max_size=8))
def test_there_and_back(event: bytes, entry: bytes) -> None:
    state = LiveState(2**64 - 1, -1, 2**32 - 1, 7, 3 * event, entry, entry[:4], entry[:6] * 4, 2 * entry)
    assert unpack_state(pack_state(state)) == state
    assert view_state(pack_state(state)).seen_keys.tobytes() == 2 * entry


@settings(deadline=None)
@given(regions, regions, regions, st.data())
def test_a_state_of_the_version_before_is_read(events: int, ids: int, seen: int, data: st.DataObject) -> None:
    times = sorted(data.draw(st.lists(st.integers(0, 2**40), min_size=events, max_size=events)))
    session = b"".join(struct.pack("<qqB", 7, time_ms, 2) for time_ms in times)
    rest = session + bytes(range(8)) * ids + bytes(8 * seen)
    old = struct.pack("<BIIHHQq", 1, 3, 4, events, ids, 9, 2) + rest
    state = unpack_state(old)
    assert (state.log_partition, state.offset, state.interaction_count, state.purchase_count) == (9, 2, 3, 4)
    assert (state.session, state.event_ids, state.seen) == (session, bytes(range(8)) * ids, bytes(8 * seen))
    assert state.places == b""
    # As of the last that is known of the user.
    last_s = min(times[-1] // 1000 if times else 0, 2**32 - 1)
    assert state.arrivals == struct.pack("<I", last_s) * ids
    assert unpack_state(pack_state(state)) == state
    assert view_state(old).seen_keys.tobytes() == bytes(8 * seen)
    for broken in (old + b"x", old[: data.draw(st.integers(1, 28))]):
        with pytest.raises(RecordError):
            unpack_state(broken)


def test_nothing_stored_is_an_empty_state() -> None:
    assert unpack_state(None) == LiveState.empty()
    assert view_state(None).interaction_count == 0


def test_a_clock_that_runs_ahead_is_clamped() -> None:
    assert clamped_ms(2_000, 1_500) == 1_500
    assert clamped_ms(1_000, 1_500) == 1_000
