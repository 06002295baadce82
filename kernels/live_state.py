"""Folding events into many users' packed live states at once."""

from typing import NamedTuple

from engine.kernels.arrays import BoolArray, Int64Array, UInt8Array
from engine.kernels.fold import fold_packed
from engine.kernels.seen_items import Memory


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

    session: events. ids, ids_s: as many ids of events at most, for so many seconds.
    places, places_s: of so many items and surfaces is remembered when the user turned there; see
    engine.kernels.counted_users.turn_to for when one makes capacity for another. seen: of items.
    """

    session: int
    ids: int
    ids_s: int
    places: int
    places_s: int
    seen: Memory


class FoldedStates(NamedTuple):
    """What a fold leaves.

    states: uint8, the new states one after the other. ends: int64 (users,), where each ends; one that has not changed
        is empty. unreadable: bool (users,), what was stored is no state, and a new one was begun.
    taken: bool (n,), the events that have made a difference.
    moves: int64 (n, 4), Unix seconds as of which the event's user counted for the item before it and counts now,
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
) -> FoldedStates:
    """Fold events into users' states, each user's in their order; engine.stream.state.fold says by which rules.

    Args:
        states: uint8, packed states one after the other. ends: int64 (users,), where each of them ends, ascending; an
            empty one is that of somebody new.
        users: int64 (n,), the position in `ends` of each event's user.
        positive: bool (256,), by type: whether it counts as an interaction, and ends what showings have done.
        purchase: the type that counts as a purchase, too. returned: the type that takes one back.

    Raises:
        ValueError: columns of different lengths, a type or user out of range, limits out of range.

    Cost: O(bytes of the states) + for each event a search through its user's items of that type.
    """
    if any(len(column) != len(users) for column in events):
        raise ValueError("columns of different lengths")
    if len(positive) != 256:
        raise ValueError(f"{len(positive)} types where there are 256")
    if not all(0 < size < 2**16 for size in (kept.session, kept.ids, kept.places)):
        raise ValueError(f"limits that are not positive, or beyond 16 bits: {kept}")
    kept_s, items, impressions, half_life_s = kept.seen
    if not (items >= 0 and impressions >= 0 and half_life_s > 0 and len(kept_s) == 256):
        raise ValueError(f"limits of seen items that are out of range: {kept.seen}")
    return FoldedStates(
        *fold_packed(states, ends, users, *events, positive, purchase, returned, *kept[:-1], *kept.seen)
    )
