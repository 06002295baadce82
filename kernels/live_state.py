"""Folding events into many users' packed live states at once."""

from typing import Final, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from kernels.counted_people import ENTRY, NONE, place_key, take_back, turn_to
from kernels.signatures import BYTES, EXACT, ROWS, read_only

Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# As engine.stream.state writes it, on a little-endian machine.
STATE_VERSION: Final = 2
# The layout of engine.stream.state: where a header's numbers stand, and the bytes of the entries behind it.
_INTERACTIONS, _PURCHASES, _EVENT_COUNT, _ID_COUNT, _LOG, _OFFSET, _PLACE_COUNT, _HEADER = 1, 5, 9, 11, 13, 21, 29, 31
_EVENT, _TIME, _TYPE, _KEY, _WORD = 17, 8, 16, 8, 4
_MAX_COUNT: Final = 2**32 - 1
_LAST_SECOND: Final = 2**32 - 1


class Events(NamedTuple):
    """Events as columns, all (n,) and int64.

    logs, offsets: place in the log. digests: 8 bytes that stand for an event id, as stored. item_keys.
    types: codes below 256. times_ms: Unix milliseconds. received_s: Unix seconds, when the server took the event in.
    surface_keys: 8 bytes that stand for a surface, 0 for none.
    """

    logs: Int64Array
    offsets: Int64Array
    digests: Int64Array
    item_keys: Int64Array
    types: Int64Array
    times_ms: Int64Array
    received_s: Int64Array
    surface_keys: Int64Array


class Kept(NamedTuple):
    """How much of a user is kept.

    session, seen: events, and items. ids, ids_s: as many ids of events at most, for so many seconds.
    places, places_s: of so many items and surfaces is remembered when the person turned there; see
    kernels.counted_people.turn_to for when one makes room for another.
    """

    session: int
    seen: int
    ids: int
    ids_s: int
    places: int
    places_s: int


class Folded(NamedTuple):
    """What a fold leaves.

    states: uint8, the new states one behind the other. ends: int64 (users,), where each ends; one that has not changed
        is empty. unreadable: bool (users,), what was stored is no state, and a new one was begun.
    taken: bool (n,), the events that have made a difference.
    moves: int64 (n, 4), Unix seconds as of which the event's person counted for the item before it and counts now,
        wherever it was; and the same for the item on the event's surface. -1: not at all.
    """

    states: UInt8Array
    ends: Int64Array
    unreadable: BoolArray
    taken: BoolArray
    moves: Int64Array


def fold_states(
    states: UInt8Array,
    ends: Int64Array,
    users: Int64Array,
    events: Events,
    positive: BoolArray,
    purchase: int,
    returned: int,
    kept: Kept,
) -> Folded:
    """Fold events into users' states, each user's in their order; engine.stream.state.fold says by which rules.

    Args:
        states: uint8, packed states one behind the other. ends: int64 (users,), where each of them ends, ascending; an
            empty one is that of somebody new.
        users: int64 (n,), the position in `ends` of each event's user.
        positive: bool (256,), by type: whether it counts as an interaction and its item as seen.
        purchase: the type that counts as a purchase, too. returned: the type that takes one back.

    Raises:
        ValueError: columns of different lengths, a type or user out of range, limits out of range.

    Cost: O(bytes of the states) + for each positive event a search through its user's seen items.
    """
    if any(len(column) != len(users) for column in events):
        raise ValueError("columns of different lengths")
    if len(positive) != 256:
        raise ValueError(f"{len(positive)} types where there are 256")
    if not (all(0 < size < 2**16 for size in (kept.session, kept.ids, kept.places)) and kept.seen >= 0):
        raise ValueError(f"limits out of range, or beyond 16 bits: {kept}")
    return Folded(*_fold_states(states, ends, users, *events, positive, purchase, returned, *kept))


@numba.njit(types.int64(BYTES, types.int64, types.int64), **EXACT)
def _load(buffer, at, size):  # type: ignore[no-untyped-def]
    """A little-endian number; of 8 bytes a signed one, else unsigned."""
    value = np.uint64(0)
    for byte in range(size):
        value |= np.uint64(buffer[at + byte]) << np.uint64(8 * byte)
    return np.int64(value)


@numba.njit(types.void(types.uint8[::1], types.int64, types.int64, types.int64), **EXACT)
def _store(buffer, at, size, value):  # type: ignore[no-untyped-def]
    bits = np.uint64(value)
    for byte in range(size):
        buffer[at + byte] = np.uint8((bits >> np.uint64(8 * byte)) & np.uint64(0xFF))


@numba.njit(types.int64(types.int64[::1], types.int64, types.int64, types.int64), **EXACT)
def _find(entries, start, end, entry):  # type: ignore[no-untyped-def]
    """Where an entry stands in entries[start:end], the last one first; -1 where it does not."""
    for at in range(end - 1, start - 1, -1):
        if entries[at] == entry:
            return at
    return -1


@numba.njit(types.int64(BYTES, types.int64, types.int64, types.int64, types.int64), **EXACT)
def _find_in_session(session, start, end, item_key, kind):  # type: ignore[no-untyped-def]
    """Where the latest event of this type on this item stands in session[start:end]; -1 where none does."""
    for at in range(end - _EVENT, start - 1, -_EVENT):
        if session[at + _TYPE] == kind and _load(session, at, 8) == item_key:
            return at
    return -1


@numba.njit(types.void(types.uint8[::1], types.int64, BYTES, types.int64, types.int64), **EXACT)
def _copy(target, at, source, start, end):  # type: ignore[no-untyped-def]
    # Counted from zero in slices: places that might be negative would be copied one by one.
    into, found = target[at : at + end - start], source[start:end]
    for place in range(len(found)):
        into[place] = found[place]


@numba.njit(types.boolean(BYTES, types.int64, types.int64), **EXACT)
def _is_state(states, start, end):  # type: ignore[no-untyped-def]
    if end - start < _HEADER or states[start] != STATE_VERSION:
        return False
    regions = _EVENT * _load(states, start + _EVENT_COUNT, 2) + (_KEY + _WORD) * _load(states, start + _ID_COUNT, 2)
    regions += ENTRY * _load(states, start + _PLACE_COUNT, 2)
    return end - start - _HEADER >= regions and (end - start - _HEADER - regions) % _KEY == 0


@numba.njit(types.UniTuple(types.int64[::1], 2)(ROWS, types.int64), **EXACT)
def _grouped(users, user_count):  # type: ignore[no-untyped-def]
    """The events by user, each one's in order; and where each user's end."""
    ends = np.zeros(user_count + 1, np.int64)
    for user in users:
        if user < 0 or user >= user_count:
            raise ValueError("an event of none of these users")
        ends[user + 1] += 1
    for user in range(user_count):
        ends[user + 1] += ends[user]
    order = np.empty(len(users), np.int64)
    # What was where a user's events begin moves up, event by event, to where they end.
    for event in range(len(users)):
        order[ends[users[event]]] = event
        ends[users[event]] += 1
    return order, ends[:user_count]


@numba.njit(
    types.Tuple((types.uint8[::1], types.int64[::1], types.boolean[::1], types.boolean[::1], types.int64[:, ::1]))(
        BYTES, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS,
        read_only(types.boolean), types.int64, types.int64,
        types.int64, types.int64, types.int64, types.int64, types.int64, types.int64,
    ),
    **EXACT,
)  # fmt: skip
def _fold_states(  # type: ignore[no-untyped-def]
    states, ends, users, logs, offsets, digests, item_keys, kinds, times_ms, received_s, surface_keys,
    positive, purchase, returned, session_limit, seen_limit, id_limit, ids_s, place_limit, places_s,
):  # fmt: skip
    for kind in kinds:
        if kind < 0 or kind >= len(positive):
            raise ValueError("types are bytes")
    order, last = _grouped(users, len(ends))
    folded = np.empty(
        len(states) + len(ends) * _HEADER + len(order) * (_EVENT + 2 * _KEY + _WORD + 2 * ENTRY), np.uint8
    )
    folded_ends = np.empty(len(ends), np.int64)
    unreadable, taken = np.zeros(len(ends), np.bool_), np.zeros(len(order), np.bool_)
    moves = np.full((len(order), 4), NONE, np.int64)
    # Room for the longest state there is, and behind it for all that one user's events can put there.
    room, start, first = 0, 0, 0
    for user in range(len(ends)):
        if ends[user] < start or ends[user] > len(states):
            raise ValueError("states end outside of the buffer, or before they start")
        room = max(room, ends[user] - start + (_EVENT + 2 * ENTRY) * (last[user] - first))
        start, first = ends[user], last[user]
    session = np.empty(room, np.uint8)
    ids, seen = np.empty(room // _KEY, np.int64), np.empty(room // _KEY, np.int64)
    # The same memory, for what is copied from and to packed states.
    id_bytes, seen_bytes = ids.view(np.uint8), seen.view(np.uint8)
    id_times, places = np.empty(room // _WORD, np.uint32), np.empty(room // _WORD, np.uint32)
    looked, bought = np.empty(room // _WORD, np.uint32), np.empty(room // _WORD, np.uint32)
    id_time_bytes, place_bytes = id_times.view(np.uint8), places.view(np.uint8)
    looked_bytes, bought_bytes = looked.view(np.uint8), bought.view(np.uint8)
    written, start, first = 0, 0, 0
    for user in range(len(ends)):
        end = ends[user]
        interactions, purchases, log, offset = 0, 0, 0, -1
        # Each region is what lies between two places of its buffer: it grows at the end, and is cut at the front.
        session_from, session_to, ids_from, ids_to, seen_from, seen_to = 0, 0, 0, 0, 0, 0
        place_count = 0
        if _is_state(states, start, end):
            interactions, purchases = _load(states, start + _INTERACTIONS, 4), _load(states, start + _PURCHASES, 4)
            log, offset = _load(states, start + _LOG, 8), _load(states, start + _OFFSET, 8)
            session_to = _EVENT * _load(states, start + _EVENT_COUNT, 2)
            ids_to = _load(states, start + _ID_COUNT, 2)
            session_end = start + _HEADER + session_to
            ids_end = session_end + _KEY * ids_to
            place_count = _load(states, start + _PLACE_COUNT, 2)
            id_times_end = ids_end + _WORD * ids_to
            places_end = id_times_end + _WORD * place_count
            looked_end = places_end + _WORD * place_count
            bought_end = looked_end + _WORD * place_count
            seen_to = (end - bought_end) // _KEY
            _copy(session, 0, states, start + _HEADER, session_end)
            _copy(id_bytes, 0, states, session_end, ids_end)
            _copy(id_time_bytes, 0, states, ids_end, id_times_end)
            _copy(place_bytes, 0, states, id_times_end, places_end)
            _copy(looked_bytes, 0, states, places_end, looked_end)
            _copy(bought_bytes, 0, states, looked_end, bought_end)
            _copy(seen_bytes, 0, states, bought_end, end)
        else:
            unreadable[user] = end > start
        changed = False
        for event in order[first : last[user]]:
            if log == logs[event] and offsets[event] <= offset:
                continue
            if log != logs[event]:
                # What this person has counted for is counted in another log.
                place_count = 0
            log, offset, changed = logs[event], offsets[event], True
            now_s = min(max(received_s[event], 0), _LAST_SECOND)
            while ids_from < ids_to and np.int64(id_times[ids_from]) < now_s - ids_s:
                ids_from += 1
            if _find(ids, ids_from, ids_to, digests[event]) >= 0:
                continue
            taken[event] = True
            ids[ids_to], id_times[ids_to] = digests[event], np.uint32(now_s)
            ids_to += 1
            ids_from = max(ids_from, ids_to - id_limit)
            time_s = min(max(times_ms[event] // 1000, 1), _LAST_SECOND)
            for part in range(2 if surface_keys[event] != 0 else 1):
                key = np.int64(place_key(item_keys[event], surface_keys[event] if part else 0))
                before, after = np.int64(NONE), np.int64(NONE)
                if kinds[event] == returned:
                    before, after, place_count = take_back(places, looked, bought, place_count, key)
                elif positive[kinds[event]]:
                    before, after, place_count = turn_to(
                        places, looked, bought, place_count, key, time_s, kinds[event] == purchase,
                        place_limit, places_s,
                    )  # fmt: skip
                moves[event, 2 * part], moves[event, 2 * part + 1] = before, after
            if kinds[event] == returned:
                # The latest purchase of the item counts as never made, here and where it stands in the session.
                if purchases > 0:
                    purchases -= 1
                    interactions = max(interactions - 1, 0)
                at = _find_in_session(session, session_from, session_to, item_keys[event], purchase)
                if at >= 0:
                    _copy(session, at, session, at + _EVENT, session_to)
                    session_to -= _EVENT
                continue
            # Behind all that are not later. Events come almost in order, so that the search starts at the end.
            at = session_to
            while at > session_from and _load(session, at - _EVENT + _TIME, 8) > times_ms[event]:
                _copy(session, at, session, at - _EVENT, at)
                at -= _EVENT
            _store(session, at, 8, item_keys[event])
            _store(session, at + _TIME, 8, times_ms[event])
            session[at + _TYPE] = kinds[event]
            session_to += _EVENT
            session_from = max(session_from, session_to - _EVENT * session_limit)
            if positive[kinds[event]]:
                interactions += 1
                if kinds[event] == purchase:
                    purchases += 1
                at = _find(seen, seen_from, seen_to, item_keys[event])
                if at >= 0:
                    for place in range(at + 1, seen_to):
                        seen[place - 1] = seen[place]
                    seen_to -= 1
                seen[seen_to] = item_keys[event]
                seen_to += 1
                seen_from = max(seen_from, seen_to - seen_limit)
        if changed:
            folded[written] = STATE_VERSION
            _store(folded, written + _INTERACTIONS, 4, min(interactions, _MAX_COUNT))
            _store(folded, written + _PURCHASES, 4, min(purchases, _MAX_COUNT))
            _store(folded, written + _EVENT_COUNT, 2, (session_to - session_from) // _EVENT)
            _store(folded, written + _ID_COUNT, 2, ids_to - ids_from)
            _store(folded, written + _LOG, 8, log)
            _store(folded, written + _OFFSET, 8, offset)
            _store(folded, written + _PLACE_COUNT, 2, place_count)
            written += _HEADER
            _copy(folded, written, session, session_from, session_to)
            written += session_to - session_from
            _copy(folded, written, id_bytes, _KEY * ids_from, _KEY * ids_to)
            written += _KEY * (ids_to - ids_from)
            _copy(folded, written, id_time_bytes, _WORD * ids_from, _WORD * ids_to)
            written += _WORD * (ids_to - ids_from)
            for words in (place_bytes, looked_bytes, bought_bytes):
                _copy(folded, written, words, 0, _WORD * place_count)
                written += _WORD * place_count
            _copy(folded, written, seen_bytes, _KEY * seen_from, _KEY * seen_to)
            written += _KEY * (seen_to - seen_from)
        folded_ends[user] = written
        start, first = end, last[user]
    return folded[:written], folded_ends, unreadable, taken, moves
