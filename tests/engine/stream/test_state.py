import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.features.record import RecordError
from engine.stream.state import LiveState, clamped_ms, pack_state, unpack_state, view_state

regions = st.integers(0, 5)


@given(regions, regions, regions, st.data())
def test_damaged_bytes_are_refused(events: int, ids: int, seen: int, data: st.DataObject) -> None:
    blob = pack_state(LiveState(1, 2, 3, 4, bytes(17 * events), bytes(8 * ids), bytes(8 * seen)))
    for broken in (bytes([9]) + blob[1:], blob[: data.draw(st.integers(1, 28))], blob + b"x"):
        with pytest.raises(RecordError):
            unpack_state(broken)
        with pytest.raises(RecordError):
            view_state(broken)


@given(st.binary(max_size=17).map(lambda event: event.ljust(17, b"-")), st.binary(min_size=8, max_size=8))
def test_there_and_back(event: bytes, entry: bytes) -> None:
    state = LiveState(2**64 - 1, -1, 2**32 - 1, 7, 3 * event, entry, 2 * entry)
    assert unpack_state(pack_state(state)) == state
    assert view_state(pack_state(state)).seen_keys.tobytes() == 2 * entry


def test_nothing_stored_is_an_empty_state() -> None:
    assert unpack_state(None) == LiveState.empty()
    assert view_state(None).interaction_count == 0


def test_a_clock_that_runs_ahead_is_clamped() -> None:
    assert clamped_ms(2_000, 1_500) == 1_500
    assert clamped_ms(1_000, 1_500) == 1_000
