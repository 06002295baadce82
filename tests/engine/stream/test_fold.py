import itertools
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.seen import FOREVER_S
from engine.errors import RecordError
from engine.features.record import unpack_session
from engine.features.seen import pack_seen
from engine.stream.fold import IS_POSITIVE, fold
from engine.stream.state import Limits, log_partition, pack_state, unpack_state, view_state
from engine.types import EventType
from tests.engine.stream.folding import StreamEvent, batch_of, digest, fold_user, packed_after, state_after

# Of views little is remembered, of dwelling nothing; times are in milliseconds, and kept in seconds.
LIMITS = Limits(
    session_events=4,
    seen_items=3,
    event_ids=4,
    event_ids_s=10,
    counted_items=3,
    remembered_s={"view": 6, "click": FOREVER_S, "cart": FOREVER_S, "purchase": FOREVER_S},
    impression_items=2,
    impression_half_life_s=4.0,
)

events = st.lists(
    st.builds(
        StreamEvent,
        st.just(0),
        st.integers(-2, 5) | st.just(-(2**63)) | st.just(2**63 - 1),
        st.sampled_from(list(EventType)),
        st.integers(0, 20_000),
        st.sampled_from(["", "a", "b", "c"]),
        st.just("u"),
        st.just(3),
        st.integers(0, 40),
        st.sampled_from(["", "home", "cart"]),
    ),
    max_size=30,
).map(
    lambda drawn: [
        event._replace(offset=2 * place, received_s=received_s)
        for place, (event, received_s) in enumerate(zip(drawn, sorted(one.received_s for one in drawn), strict=True))
    ]
)


@settings(max_examples=200, deadline=None)
@given(events, st.lists(st.integers(0, 30)))
def test_any_batching_gives_the_same_bytes_and_takes_the_same_events(
    stream: list[StreamEvent], cuts: list[int]
) -> None:
    whole = fold_user(None, stream, LIMITS)
    blob, taken, moves = None, [], []
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, stop in itertools.pairwise(bounds):
        part = fold_user(blob, stream[start:stop], LIMITS)
        blob = part.states.get(0, blob)
        taken += part.taken.tolist()
        moves += part.moves.tolist()
    assert blob == whole.states.get(0)
    assert taken == whole.taken.tolist()
    assert moves == whole.moves.tolist()


@settings(deadline=None)
@given(st.lists(events, min_size=1, max_size=4), st.randoms())
def test_many_users_at_once_are_each_by_themselves(streams: list[list[StreamEvent]], random: object) -> None:
    # In whatever order the log has them, each user's own events in theirs.
    turns = [user for user, stream in enumerate(streams) for _ in stream]
    random.shuffle(turns)  # type: ignore[attr-defined]
    left = [iter(stream) for stream in streams]
    mixed = [next(left[user]) for user in turns]
    before = [packed_after([StreamEvent(0, 9, name="before")], limits=LIMITS) if user % 2 else None
              for user in range(len(streams))]  # fmt: skip
    folded = fold(before, np.array(turns, np.int64), "", batch_of(mixed), LIMITS)
    for user, stream in enumerate(streams):
        alone = fold_user(before[user], stream, LIMITS)
        assert folded.states.get(user) == alone.states.get(0)
        assert folded.taken[np.array(turns, np.int64) == user].tolist() == alone.taken.tolist()


@settings(deadline=None)
@given(events, st.integers(0, 30))
def test_a_replay_changes_nothing(stream: list[StreamEvent], start: int) -> None:
    once = packed_after(stream, limits=LIMITS)
    again = fold_user(once, stream[start:], LIMITS)
    assert again.states == {}
    assert not again.taken.any()
    assert (again.moves == -1).all()


@settings(max_examples=200, deadline=None)
@given(events)
def test_the_fold_agrees_with_plain_lists(stream: list[StreamEvent]) -> None:
    ids: list[tuple[bytes, int]] = []
    session: list[tuple[int, int, int]] = []
    # By type, of each item when it was last met and, of impressions, how often, in 256ths.
    seen: dict[EventType, dict[int, tuple[int, int]]] = {kind: {} for kind in EventType}
    interactions = purchases = 0
    for event in stream:
        key, kind, time_s = event.item_key, EventType(event.event_type), event.time_ms // 1000
        of_kind = seen[kind]
        if kind == EventType.IMPRESSION:
            last_s, count = of_kind.get(key, (time_s, 0))
            if key in of_kind and last_s == time_s:
                continue
            newest = max(last_s, time_s)
            count = decayed(count, newest - last_s) + decayed(256, newest - time_s)
            keep(of_kind, key, (newest, count), 2, 32)
            continue
        ids = [(name, arrived_s) for name, arrived_s in ids[-4:] if arrived_s >= event.received_s - 10]
        if digest(event) in [name for name, _ in ids]:
            continue
        ids.append((digest(event), event.received_s))
        if kind == EventType.RETURN:
            # Of nothing that was bought it takes nothing back.
            interactions -= interactions > 0 and purchases > 0
            purchases -= purchases > 0
            seen[EventType.PURCHASE].pop(key, None)
            bought = [place for place, (key, _, kind) in enumerate(session)
                      if (key, kind) == (event.item_key, EventType.PURCHASE)]  # fmt: skip
            if bought:
                del session[bought[-1]]
            continue
        entry = key, event.time_ms, int(kind)
        session = sorted([*session, entry], key=lambda entry: entry[1])[-4:]
        if kind != EventType.DWELL:
            interactions += 1
            purchases += kind == EventType.PURCHASE
            seen[EventType.IMPRESSION].pop(key, None)
            if key not in of_kind or of_kind[key][0] < time_s:
                keep(of_kind, key, (time_s, 256), 3, LIMITS.remembered_s[kind.name.lower()])
    blob = packed_after(stream, limits=LIMITS)
    state, view = unpack_state(blob), view_state(blob)
    found = view.session
    assert [*zip(found.item_keys, found.timestamps_ms, found.event_types, strict=True)] == session
    expected = [
        (kind, key, time_s, count / 256)
        for kind, of_kind in seen.items()
        for key, (time_s, count) in sorted(of_kind.items(), key=lambda entry: entry[1][0])
    ]
    columns = view.seen
    assert [*zip(columns.event_types, columns.item_keys, columns.times_s, columns.counts, strict=True)] == expected
    assert (view.interaction_count, view.purchase_count) == (interactions, purchases)
    assert state.event_ids == b"".join(name for name, _ in ids[-4:])
    assert state.arrivals == b"".join(struct.pack("<I", arrived_s) for _, arrived_s in ids[-4:])
    if stream:
        assert (state.log_partition, state.offset) == (log_partition("", 3), stream[-1].offset)
        # Bit for bit what the other side of the format would have written.
        assert pack_state(state) == blob
        assert pack_seen(view.seen) == state.seen


def decayed(count: int, elapsed_s: int) -> int:
    return round(count * 0.5 ** (elapsed_s / 4.0))


def keep(of_kind: dict[int, tuple[int, int]], key: int, entry: tuple[int, int], limit: int, kept_s: int) -> None:
    """Put an entry behind all that are not later; drop what is over the limit, then what is too old."""
    of_kind.pop(key, None)
    entries = sorted([*of_kind.items(), (key, entry)], key=lambda one: one[1][0])[-limit:]
    of_kind.clear()
    of_kind.update(one for one in entries if one[1][0] >= entries[-1][1][0] - kept_s)


def test_showings_within_one_second_are_one_and_add_up_else() -> None:
    def shown(offset: int, time_ms: int) -> StreamEvent:
        return StreamEvent(offset, 7, EventType.IMPRESSION, time_ms)

    folded = fold_user(None, [shown(0, 5_000), shown(1, 5_900), shown(2, 9_000), shown(3, 1_000)], LIMITS)
    assert folded.taken.tolist() == [True, False, True, True]
    seen = view_state(folded.states[0]).seen
    # As of nine seconds: one now, one four seconds before, and one eight seconds before, of a half-life of four.
    assert (seen.times_s.tolist(), seen.counts.tolist()) == ([9], [1.0 + 0.5 + 0.25])


def test_a_return_leaves_what_there_was_before_the_purchase() -> None:
    clicked = [StreamEvent(0, 7, EventType.CLICK, 10)]
    bought = [StreamEvent(1, 8, EventType.PURCHASE, 20), StreamEvent(2, 7, EventType.PURCHASE, 30)]
    kept = view_state(packed_after([*clicked, *bought, StreamEvent(3, 7, EventType.RETURN, 40)]))
    assert (kept.interaction_count, kept.purchase_count) == (2, 1)
    assert [*zip(kept.session.item_keys, kept.session.event_types, strict=True)] == [
        (7, EventType.CLICK), (8, EventType.PURCHASE),
    ]  # fmt: skip
    # What was looked at stays looked at, and is not hidden as bought.
    remembered = [*zip(kept.seen.item_keys, kept.seen.event_types, strict=True)]
    assert remembered == [(7, EventType.CLICK), (8, EventType.PURCHASE)]
    # A return of what this state does not know leaves no trace.
    stranger = view_state(packed_after([StreamEvent(0, 7, EventType.RETURN)]))
    assert (stranger.interaction_count, stranger.purchase_count, len(stranger.session.item_keys)) == (0, 0, 0)
    assert not len(stranger.seen)


def test_out_of_order_events_are_put_in_time_order_with_ties_in_order_of_arrival() -> None:
    arrived = [StreamEvent(offset, 10 + offset, time_ms=time_ms) for offset, time_ms in enumerate([5, 9, 5, 1])]
    blob = packed_after(arrived, limits=LIMITS)
    assert view_state(blob).session.item_keys.tolist() == [13, 10, 12, 11]
    # Older than all of a full session: counted and seen, but no part of the session.
    late = state_after([StreamEvent(4, 14, time_ms=0)], blob, LIMITS)
    assert late.session == unpack_state(blob).session
    assert late.interaction_count == 5


def test_a_state_with_more_than_the_limits_is_cut_at_its_next_event() -> None:
    blob = packed_after([StreamEvent(offset, offset, time_ms=offset) for offset in range(20)])
    state = state_after([StreamEvent(20, 20, time_ms=20)], blob, LIMITS)
    assert unpack_session(state.session).item_keys.tolist() == [17, 18, 19, 20]
    assert (len(state.event_ids), len(state.arrivals)) == (4 * 8, 4 * 4)
    assert view_state(pack_state(state)).seen.item_keys.tolist() == [18, 19, 20]
    # An event of one type leaves those of others alone.
    dwelt = state_after([StreamEvent(20, 20, EventType.DWELL)], blob, LIMITS)
    assert view_state(pack_state(dwelt)).seen.item_keys.tolist() == list(range(20))


def test_a_recreated_log_starts_again_from_its_first_offset() -> None:
    blob = packed_after([StreamEvent(7)])
    moved = fold_user(blob, [StreamEvent(0, 2, name="x")], log="new")
    assert moved.taken.tolist() == [True]
    state = unpack_state(moved.states[0])
    assert (state.log_partition, state.offset, state.interaction_count) == (log_partition("new", 3), 0, 2)


def test_keys_whose_bytes_straddle_two_entries_are_told_apart() -> None:
    # The middle of these two keys' bytes is the third key.
    first, second = int.from_bytes(bytes(range(8)), "little"), int.from_bytes(bytes(range(8, 16)), "little")
    middle = int.from_bytes(bytes(range(4, 12)), "little")
    blob = packed_after([StreamEvent(0, first), StreamEvent(1, second), StreamEvent(2, middle)], limits=LIMITS)
    assert view_state(blob).seen.item_keys.tolist() == [first, second, middle]
    moved = view_state(packed_after([StreamEvent(3, first, time_ms=1_000)], blob, LIMITS))
    assert moved.seen.item_keys.tolist() == [second, middle, first]


def test_counts_stay_within_their_bytes() -> None:
    most = 2**32 - 1
    full = unpack_state(packed_after([StreamEvent(0)]))._replace(interaction_count=most, purchase_count=most)
    state = state_after([StreamEvent(1, kind) for kind in range(3)], pack_state(full))
    state = state_after([StreamEvent(9, 9, EventType.PURCHASE)], pack_state(state))
    assert (state.interaction_count, state.purchase_count) == (most, most)


@settings(deadline=None)
@given(events, st.data())
def test_bytes_that_are_no_state_are_told_and_begun_anew(stream: list[StreamEvent], data: st.DataObject) -> None:
    blob = packed_after(stream, limits=LIMITS)
    click = StreamEvent(99, 5)
    for broken in (b"\x09" + blob[1:], blob[: data.draw(st.integers(1, 30))] or b"x", blob + b"x"):
        with pytest.raises(RecordError):
            unpack_state(broken)
        folded = fold_user(broken, [click], LIMITS)
        assert folded.unreadable == [0]
        assert folded.states[0] == packed_after([click], limits=LIMITS)


@settings(deadline=None)
@given(st.sampled_from([1, 2, 3]), st.binary(min_size=1, max_size=120))
def test_what_is_read_is_what_the_other_side_of_the_format_reads(version: int, blob: bytes) -> None:
    blob = bytes([version]) + blob
    try:
        unpack_state(blob)
    except RecordError:
        readable = False
    else:
        readable = True
    assert (fold_user(blob, [StreamEvent(0)], LIMITS).unreadable == []) == readable


def test_which_events_show_interest() -> None:
    assert [EventType(kind) for kind in np.flatnonzero(IS_POSITIVE)] == [
        EventType.VIEW, EventType.CLICK, EventType.CART, EventType.PURCHASE,
    ]  # fmt: skip
