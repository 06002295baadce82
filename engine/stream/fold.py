"""Events into their users' live states: a fold over the log that can be stopped, repeated and resumed anywhere."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple

import numpy as np

from engine.errors import RecordError
from engine.kernels.bytes import STATE_VERSION
from engine.kernels.live_state import Events, fold_states
from engine.stream.earlier import upgraded
from engine.stream.events import EventBatch
from engine.stream.state import Limits, log_partition
from engine.types import BoolArray, EventType, Int64Array

# By type, whether an event shows interest, as in engine.data.dataset.POSITIVE_EVENTS, without importing what reads
# tables.
IS_POSITIVE: Final[BoolArray] = np.zeros(256, np.bool_)
IS_POSITIVE[[EventType.VIEW, EventType.CLICK, EventType.CART, EventType.PURCHASE]] = True
# And whether it moves a user's vector: what was taken back does, too.
MOVES_USER: Final[BoolArray] = IS_POSITIVE.copy()
MOVES_USER[EventType.RETURN] = True
# A plain number: what is a member of an enum costs a kernel's call more than all its arrays.
_PURCHASE: Final = int(EventType.PURCHASE)
_RETURN: Final = int(EventType.RETURN)


class Folded(NamedTuple):
    """What events leave.

    states: the packed states that have changed, by the user's position. taken: bool (m,), the events that count, for
    what else counts them. moves: int64 (m, 4), see engine.kernels.live_state.Folded. unreadable: positions of states
    that could not be read; new ones were begun for them.
    """

    states: dict[int, bytes]
    taken: BoolArray
    moves: Int64Array
    unreadable: list[int]


def fold(blobs: Sequence[bytes | None], users: Int64Array, log: str, batch: EventBatch, limits: Limits) -> Folded:
    """Fold events into their users' states, each user's in log order, so that any batching gives the same bytes.

    - What is at or below the last applied offset of the same log partition is ignored: a replay changes nothing. An
      event of another log partition (a recreated or moved log) is taken, and its position remembered instead.
    - An event whose id came within the last `event_ids_s` seconds, by the server's clock, and is among the user's last
      `event_ids` counts once.
    - In what is popular a user counts for an item as of their latest positive event on it (features.user_counts);
      `moves` says from when to when an event moves that.
    - The session keeps the latest `session_events` events by time, in time order, ties in order of arrival; an event
      that arrives late takes its place in it, and one older than all of a full session has none.
    - A return takes back a purchase: it counts as never made, and the item's latest purchase leaves the session. It has
      no place in the session of its own, and the item is not among what the user has bought any more.
    - Positive events count as interactions, purchases also as purchases.
    - Of each type, but impressions, the latest event on each item is kept by its time, of the `seen_items` latest items
      and no longer than `remembered_s` before the latest of them.
    - Impressions are part of no session, and their ids are not remembered: the same item shown again in the very second
      of its latest showing is the same showing. Showings of an item add up, halved every `impression_half_life_s`, for
      the `impression_items` that were shown last; a positive event on the item ends that.

    Args:
        blobs: the packed state of each user; None or empty for somebody new.
        users: int64 (m,), for each event of the batch the position in `blobs` of its user.
        log: the name of the log.

    Cost: about 1 µs a user, and for an event a search through the user's items of its type.
    """
    present = [blob if blob and blob[0] == STATE_VERSION else _current(blob) for blob in blobs]
    ends = np.fromiter(accumulate(map(len, present)), np.int64, len(present))
    names = {partition: log_partition(log, partition) for partition in batch.ends}
    logs = np.array([names[partition] for partition in batch.partitions.tolist()], np.uint64).view(np.int64)
    folded = fold_states(
        np.frombuffer(b"".join(present), np.uint8),
        ends,
        users,
        Events(
            logs,
            batch.offsets,
            batch.id_digests,
            batch.item_keys,
            batch.event_types,
            batch.times_ms,
            batch.received_s,
            batch.surface_keys(),
        ),
        IS_POSITIVE,
        _PURCHASE,
        _RETURN,
        limits.kept(),
    )
    packed, start = folded.states.data, 0
    changed = {}
    for user, end in enumerate(folded.ends.tolist()):
        if end > start:
            changed[user] = packed[start:end].tobytes()
            start = end
    return Folded(changed, folded.taken, folded.moves, np.flatnonzero(folded.unreadable).tolist())


def _current(blob: bytes | None) -> bytes:
    """A state of today's version; what is none stays as it is, for the fold to find."""
    if not blob:
        return b""
    try:
        return upgraded(blob)
    except RecordError:
        return blob
