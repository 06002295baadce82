"""What recent events say of one user, packed: regions of bytes in the formats that requests read.

Live state (little-endian): version u8, interactions u32, purchases u32, session events u16, remembered ids u16,
log partition u64, offset i64; then the session events (17 bytes each, in time order), the remembered event ids
(8 bytes each, in order of arrival) and the seen item keys (8 bytes each, most recent last). kernels.live_state folds
events into these very bytes.
"""

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

import xxhash

from engine.features.record import RecordError, unpack_keys, unpack_session
from engine.types import Int64Array, Session

STATE_VERSION: Final = 1
_HEADER: Final = struct.Struct("<BIIHHQq")
_EVENT: Final = struct.Struct("<qqB")


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


def clamped_ms(time_ms: int, received_ms: int) -> int:
    """The time that counts: a client's clock that runs ahead cannot put an event after its arrival."""
    return min(time_ms, received_ms)


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
