"""The loops of live_state.fold_states."""

from typing import Final

import numba
import numpy as np
from numba import types

from engine.kernels.bytes import (
    EVENT,
    EVENT_COUNT,
    EVENT_TIME,
    EVENT_TYPE,
    HEADER,
    ID_COUNT,
    INTERACTIONS,
    KEY,
    LOG,
    OFFSET,
    PLACE_COUNT,
    PURCHASES,
    STATE_VERSION,
    WORD,
)
from engine.kernels.bytes import copy_bytes as _copy
from engine.kernels.bytes import load as _load
from engine.kernels.bytes import store as _store
from engine.kernels.counted_users import ENTRY, NONE, place_key, take_back, turn_to
from engine.kernels.seen_items import (
    IMPRESSION,
    are_regions,
    drop_item,
    find_item,
    read_lists,
    remember_event,
    remember_showing,
    write_lists,
)
from engine.kernels.signatures import BYTES, EXACT, ROWS, read_only

# The fewest bytes of an entry of seen items, and the most that an event adds to them.
_ENTRY, _NEW_ENTRY = 12, 19
_MAX_COUNT: Final = 2**32 - 1
_LAST_SECOND: Final = 2**32 - 1


@numba.njit(types.int64(types.int64[::1], types.int64, types.int64, types.int64), **EXACT)
def _find(entries, start, end, entry):  # type: ignore[no-untyped-def]
    """The position of an entry in entries[start:end], searched from the end; -1 where it is missing."""
    for at in range(end - 1, start - 1, -1):
        if entries[at] == entry:
            return at
    return -1


@numba.njit(types.int64(BYTES, types.int64, types.int64, types.int64, types.int64), **EXACT)
def _find_in_session(session, start, end, item_key, kind):  # type: ignore[no-untyped-def]
    """The position of the latest event of this type on this item in session[start:end]; -1 where there is none."""
    for at in range(end - EVENT, start - 1, -EVENT):
        if session[at + EVENT_TYPE] == kind and _load(session, at, 8) == item_key:
            return at
    return -1


@numba.njit(types.boolean(BYTES, types.int64, types.int64), **EXACT)
def _is_state(states, start, end):  # type: ignore[no-untyped-def]
    if end - start < HEADER or states[start] != STATE_VERSION:
        return False
    regions = EVENT * _load(states, start + EVENT_COUNT, 2) + (KEY + WORD) * _load(states, start + ID_COUNT, 2)
    regions += ENTRY * _load(states, start + PLACE_COUNT, 2)
    return end - start - HEADER >= regions and are_regions(states, start + HEADER + regions, end)


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
        types.int64, types.int64, types.int64, types.int64, types.int64,
        ROWS, types.int64, types.int64, types.float64,
    ),
    **EXACT,
)  # fmt: skip
def fold_packed(  # type: ignore[no-untyped-def]
    states, ends, users, logs, offsets, digests, item_keys, kinds, times_ms, received_s, surface_keys,
    positive, purchase, returned, session_limit, id_limit, ids_s, place_limit, places_s,
    kept_s, item_limit, impression_limit, half_life_s,
):  # fmt: skip
    for kind in kinds:
        if kind < 0 or kind >= len(positive):
            raise ValueError("types are bytes")
    order, last = _grouped(users, len(ends))
    slots = np.full(256, -1, np.int64)
    slot_count = 0
    for kind in range(256):
        if kept_s[kind] > 0 and (impression_limit if kind == IMPRESSION else item_limit) > 0:
            slots[kind] = slot_count
            slot_count += 1
    folded = np.empty(
        len(states) + len(ends) * HEADER + len(order) * (EVENT + KEY + WORD + 2 * ENTRY + _NEW_ENTRY),
        np.uint8,
    )
    folded_ends = np.empty(len(ends), np.int64)
    unreadable, taken = np.zeros(len(ends), np.bool_), np.zeros(len(order), np.bool_)
    moves = np.full((len(order), 4), NONE, np.int64)
    # Capacity for the longest state there is, and after it for all that one user's events can add.
    capacity, most_events, start, first = 0, 0, 0, 0
    for user in range(len(ends)):
        if ends[user] < start or ends[user] > len(states):
            raise ValueError("states end outside of the buffer, or before they start")
        capacity = max(capacity, ends[user] - start + (EVENT + 2 * ENTRY) * (last[user] - first))
        most_events = max(most_events, last[user] - first)
        start, first = ends[user], last[user]
    session = np.empty(capacity, np.uint8)
    ids = np.empty(capacity // KEY, np.int64)
    # The same memory, for what is copied from and to packed states.
    id_bytes = ids.view(np.uint8)
    # Of one user at a time, a line for each type that is kept.
    lists = (slot_count, capacity // _ENTRY + most_events)
    keys, times, counts = np.empty(lists, np.int64), np.empty(lists, np.int64), np.empty(lists, np.int64)
    starts, stops = np.zeros(slot_count, np.int64), np.zeros(slot_count, np.int64)
    id_times, places = np.empty(capacity // WORD, np.uint32), np.empty(capacity // WORD, np.uint32)
    looked, bought = np.empty(capacity // WORD, np.uint32), np.empty(capacity // WORD, np.uint32)
    id_time_bytes, place_bytes = id_times.view(np.uint8), places.view(np.uint8)
    looked_bytes, bought_bytes = looked.view(np.uint8), bought.view(np.uint8)
    written, start, first = 0, 0, 0
    for user in range(len(ends)):
        end = ends[user]
        interactions, purchases, log, offset = 0, 0, 0, -1
        # Each region is what lies between two places of its buffer: it grows at the end, and is cut at the front.
        session_from, session_to, ids_from, ids_to = 0, 0, 0, 0
        starts[:], stops[:] = 0, 0
        place_count = 0
        if _is_state(states, start, end):
            interactions, purchases = _load(states, start + INTERACTIONS, 4), _load(states, start + PURCHASES, 4)
            log, offset = _load(states, start + LOG, 8), _load(states, start + OFFSET, 8)
            session_to = EVENT * _load(states, start + EVENT_COUNT, 2)
            ids_to = _load(states, start + ID_COUNT, 2)
            session_end = start + HEADER + session_to
            ids_end = session_end + KEY * ids_to
            place_count = _load(states, start + PLACE_COUNT, 2)
            id_times_end = ids_end + WORD * ids_to
            places_end = id_times_end + WORD * place_count
            looked_end = places_end + WORD * place_count
            bought_end = looked_end + WORD * place_count
            _copy(session, 0, states, start + HEADER, session_end)
            _copy(id_bytes, 0, states, session_end, ids_end)
            _copy(id_time_bytes, 0, states, ids_end, id_times_end)
            _copy(place_bytes, 0, states, id_times_end, places_end)
            _copy(looked_bytes, 0, states, places_end, looked_end)
            _copy(bought_bytes, 0, states, looked_end, bought_end)
            read_lists(states, bought_end, end, slots, keys, times, counts, starts, stops)
        else:
            unreadable[user] = end > start
        changed = False
        for event in order[first : last[user]]:
            if log == logs[event] and offsets[event] <= offset:
                continue
            log, offset, changed = logs[event], offsets[event], True
            slot, second = slots[kinds[event]], min(max(times_ms[event], 0) // 1000, _LAST_SECOND)
            if kinds[event] == IMPRESSION:
                # A part of no session, and told apart by its second: showings are many, and must push out nothing.
                if slot >= 0:
                    taken[event] = remember_showing(
                        keys, times, counts, starts, stops, slot, item_keys[event], second,
                        impression_limit, kept_s[IMPRESSION], half_life_s,
                    )  # fmt: skip
                continue
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
                # The latest purchase of the item counts as never made: here, in the session, and among what was bought.
                if purchases > 0:
                    purchases -= 1
                    interactions = max(interactions - 1, 0)
                at = _find_in_session(session, session_from, session_to, item_keys[event], purchase)
                if at >= 0:
                    _copy(session, at, session, at + EVENT, session_to)
                    session_to -= EVENT
                owned = slots[purchase]
                at = find_item(keys, owned, starts, stops, item_keys[event]) if owned >= 0 else -1
                if at >= 0:
                    drop_item(keys, times, counts, stops, owned, at)
                continue
            # After all that are not later. Events come almost in order, so that the search starts at the end.
            at = session_to
            while at > session_from and _load(session, at - EVENT + EVENT_TIME, 8) > times_ms[event]:
                _copy(session, at, session, at - EVENT, at)
                at -= EVENT
            _store(session, at, 8, item_keys[event])
            _store(session, at + EVENT_TIME, 8, times_ms[event])
            session[at + EVENT_TYPE] = kinds[event]
            session_to += EVENT
            session_from = max(session_from, session_to - EVENT * session_limit)
            if positive[kinds[event]]:
                interactions += 1
                if kinds[event] == purchase:
                    purchases += 1
                shown = slots[IMPRESSION]
                at = find_item(keys, shown, starts, stops, item_keys[event]) if shown >= 0 else -1
                if at >= 0:
                    drop_item(keys, times, counts, stops, shown, at)
            if slot >= 0:
                remember_event(
                    keys, times, counts, starts, stops, slot, item_keys[event], second, item_limit, kept_s[kinds[event]]
                )
        if changed:
            folded[written] = STATE_VERSION
            _store(folded, written + INTERACTIONS, 4, min(interactions, _MAX_COUNT))
            _store(folded, written + PURCHASES, 4, min(purchases, _MAX_COUNT))
            _store(folded, written + EVENT_COUNT, 2, (session_to - session_from) // EVENT)
            _store(folded, written + ID_COUNT, 2, ids_to - ids_from)
            _store(folded, written + LOG, 8, log)
            _store(folded, written + OFFSET, 8, offset)
            _store(folded, written + PLACE_COUNT, 2, place_count)
            written += HEADER
            _copy(folded, written, session, session_from, session_to)
            written += session_to - session_from
            _copy(folded, written, id_bytes, KEY * ids_from, KEY * ids_to)
            written += KEY * (ids_to - ids_from)
            _copy(folded, written, id_time_bytes, WORD * ids_from, WORD * ids_to)
            written += WORD * (ids_to - ids_from)
            for words in (place_bytes, looked_bytes, bought_bytes):
                _copy(folded, written, words, 0, WORD * place_count)
                written += WORD * place_count
            written = write_lists(folded, written, slots, keys, times, counts, starts, stops)
        folded_ends[user] = written
        start, first = end, last[user]
    return folded[:written], folded_ends, unreadable, taken, moves
