"""What recent events say of one user: a fold over the log that can be stopped, repeated and resumed anywhere.

Pure and packed: regions of bytes in the formats that requests read (engine.features.record), so that folding in an
event costs a few microseconds and no object per stored event.

Live state (little-endian): version u8, interactions u32, purchases u32, session events u16, remembered ids u16,
log partition u64, offset i64; then the session events (17 bytes each, in time order), the remembered event ids
(8 bytes each, in order of arrival) and the seen item keys (8 bytes each, most recent last).
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import xxhash

from engine.features.record import RecordError, unpack_keys, unpack_session
from engine.types import EventType, Int64Array, Session

STATE_VERSION: Final = 1
_HEADER: Final = struct.Struct("<BIIHHQq")
_EVENT: Final = struct.Struct("<qqB")
_KEY: Final = struct.Struct("<q")
_MAX_COUNT: Final = 2**32 - 1
# An event of interest, as in engine.data.dataset.POSITIVE_EVENTS, without importing what reads tables.
_POSITIVE: Final = frozenset((EventType.VIEW, EventType.CLICK, EventType.CART, EventType.PURCHASE))
# Plain numbers: looking up a member of an enum takes longer than the comparison.
_IMPRESSION: Final = int(EventType.IMPRESSION)
_PURCHASE: Final = int(EventType.PURCHASE)


class StreamEvent(NamedTuple):
    """One event as the fold wants it.

    id_digest: 8 bytes, a hash of the event id. time_ms: never after the server took the event in (`clamped_ms`).
    """

    partition: int
    offset: int
    user_id: str
    id_digest: bytes
    item_key: int
    event_type: int
    time_ms: int
    surface: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a user is kept."""

    session_events: int = 50
    seen_items: int = 5_000


class LiveState(NamedTuple):
    """One user; `log_partition` and `offset` name the last event that was applied, offset -1 for none."""

    log_partition: int
    offset: int
    interaction_count: int
    purchase_count: int
    session: bytes
    event_ids: bytes
    seen: bytes

    @staticmethod
    def empty() -> "LiveState":
        return _EMPTY


_EMPTY: Final = LiveState(0, -1, 0, 0, b"", b"", b"")


@dataclass(frozen=True, slots=True)
class LiveView:
    """What a request reads of a live state; seen_keys is int64 (n,), most recent last, read-only."""

    interaction_count: int
    purchase_count: int
    session: Session
    seen_keys: Int64Array


def log_partition(log: str, partition: int) -> int:
    """The name of one partition of one incarnation of the log, uint64: offsets compare within one of them only."""
    return xxhash.xxh3_64_intdigest(f"{log}/{partition}".encode())


def event_id_digest(event_id: str) -> bytes:
    """8 bytes that stand for an event id."""
    return xxhash.xxh3_64_digest(event_id.encode())


def clamped_ms(time_ms: int, received_ms: int) -> int:
    """The time that counts: a client's clock that runs ahead cannot put an event after its arrival."""
    return min(time_ms, received_ms)


def is_positive(event_type: int) -> bool:
    """Whether the event shows interest: a view, click, cart or purchase."""
    return event_type in _POSITIVE


def apply(
    state: LiveState, log: int, events: Iterable[StreamEvent], limits: Limits
) -> tuple[LiveState, list[StreamEvent]]:
    """Fold a user's events, in log order, into their state; a fold, so that any batching gives the same bytes.

    - Impressions say nothing of a user's interest: they change nothing, so that a slate shown cannot push fifty
      clicks out of the session.
    - What is at or below the last applied offset of the same log partition is ignored: a replay changes nothing. An
      event of another log partition (a recreated or moved log) is taken, and its position remembered instead.
    - An event whose id is among the last `session_events` ids counts once.
    - The session keeps the latest `session_events` events by time, in time order, ties in order of arrival; an event
      that arrives late takes its place in it, and one older than all of a full session has none.
    - Positive events count as interactions, purchases also as purchases, and their items are seen: each item once,
      in order of its latest arrival, the most recent `seen_items` of them.

    Args:
        log: the `log_partition` that the events come from.

    Returns:
        The new state (the same object when nothing changed) and the events that were taken, for what else counts them.

    Cost: about 3 µs an event, and for a positive one a search through the seen keys and a copy of them.
    """
    offset = state.offset if state.log_partition == log else -1
    session, event_ids, seen = state.session, state.event_ids, state.seen
    session_size, ids_size = _EVENT.size * limits.session_events, 8 * limits.session_events
    interactions, purchases = state.interaction_count, state.purchase_count
    taken: list[StreamEvent] = []
    last = offset
    for event in events:
        _, place, _, digest, item, kind, time_ms, _ = event
        if kind == _IMPRESSION or place <= last:
            continue
        last = place
        if _find(event_ids, digest) >= 0:
            continue
        taken.append(event)
        event_ids = _keep_last(event_ids + digest, ids_size)
        session = _keep_last(_insert(session, item, time_ms, kind), session_size)
        if kind in _POSITIVE:
            interactions += 1
            purchases += kind == _PURCHASE
            seen = _keep_last(_move_to_end(seen, _KEY.pack(item)), 8 * limits.seen_items)
    if last == offset:
        return state, taken
    counts = min(interactions, _MAX_COUNT), min(purchases, _MAX_COUNT)
    return LiveState(log, last, *counts, session, event_ids, seen), taken


def pack_state(state: LiveState) -> bytes:
    """The state as stored."""
    header = _HEADER.pack(
        STATE_VERSION,
        state.interaction_count,
        state.purchase_count,
        len(state.session) // _EVENT.size,
        len(state.event_ids) // 8,
        state.log_partition,
        state.offset,
    )
    return b"".join((header, state.session, state.event_ids, state.seen))


def unpack_state(blob: bytes | None) -> LiveState:
    """The state of `pack_state`; empty for None. Raises RecordError for other versions and for truncated bytes."""
    if not blob:
        return LiveState.empty()
    interactions, purchases, log, offset, session_end, ids_end = _parts(blob)
    return LiveState(
        log,
        offset,
        interactions,
        purchases,
        blob[_HEADER.size : session_end],
        blob[session_end:ids_end],
        blob[ids_end:],
    )


def view_state(blob: bytes | None) -> LiveView:
    """A stored state as requests read it; empty for None. Raises RecordError as `unpack_state` does."""
    if not blob:
        return LiveView(0, 0, Session.empty(), unpack_keys(None))
    interactions, purchases, _, _, session_end, ids_end = _parts(blob)
    session = unpack_session(blob[_HEADER.size : session_end])
    return LiveView(interactions, purchases, session, unpack_keys(blob[ids_end:]))


def _parts(blob: bytes) -> tuple[int, int, int, int, int, int]:
    """Interactions, purchases, log partition and offset; and where the session and the event ids end."""
    if blob[0] != STATE_VERSION:
        raise RecordError(f"live state version {blob[0]} is unknown; this engine reads {STATE_VERSION}")
    if len(blob) < _HEADER.size:
        raise RecordError(f"live state of {len(blob)} bytes is truncated")
    _, interactions, purchases, event_count, id_count, log, offset = _HEADER.unpack_from(blob)
    session_end = _HEADER.size + event_count * _EVENT.size
    ids_end = session_end + id_count * 8
    if len(blob) < ids_end or (len(blob) - ids_end) % 8:
        raise RecordError(f"live state of {len(blob)} bytes is truncated")
    return interactions, purchases, log, offset, session_end, ids_end


def _find(region: bytes, entry: bytes) -> int:
    """Where an 8-byte entry starts in a region of such entries, -1 where it is not; the last one first."""
    position = region.rfind(entry)
    while position > 0 and position % 8:
        # The bytes of two neighbours can look like the entry.
        position = region.rfind(entry, 0, position + 7)
    return position


def _insert(session: bytes, item: int, time_ms: int, kind: int) -> bytes:
    """Put an event behind all that are not later. Events come almost in order, so that the search starts at the end."""
    event = _EVENT.pack(item, time_ms, kind)
    end = len(session)
    while end and _EVENT.unpack_from(session, end - _EVENT.size)[1] > time_ms:
        end -= _EVENT.size
    return session + event if end == len(session) else session[:end] + event + session[end:]


def _move_to_end(seen: bytes, key: bytes) -> bytes:
    position = _find(seen, key)
    return (seen if position < 0 else seen[:position] + seen[position + 8 :]) + key


def _keep_last(region: bytes, size: int) -> bytes:
    return region if len(region) <= size else region[len(region) - size :]
