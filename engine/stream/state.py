"""What recent events say of one user, packed: regions of bytes in the formats that requests read.

Live state (little-endian): version u8, interactions u32, purchases u32, session events u16, remembered ids u16,
log partition u64, offset i64, counted places u16; then the session events (17 bytes each, in time order), the
remembered event ids (8 bytes each, in order of arrival), when they arrived (u32 seconds each), the places that the
user counts for (engine.kernels.counted_users: three columns of u32) and the seen items (engine.kernels.seen_items).
engine.kernels.bytes has the sizes and offsets; engine.kernels.live_state folds events into these very bytes;
engine.stream.earlier reads those of earlier versions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import xxhash

from engine.config.seen import FOREVER_S
from engine.errors import RecordError
from engine.features.record import unpack_session
from engine.features.schema import POPULARITY_WINDOWS_S
from engine.features.seen import read_seen
from engine.features.state import SeenItems, Session
from engine.kernels.bytes import EVENT, HEADER, KEY, STATE_HEADER, STATE_VERSION, WORD
from engine.kernels.counted_users import ENTRY
from engine.kernels.live_state import Kept
from engine.kernels.seen_items import Memory
from engine.stream.earlier import upgraded
from engine.types import EventType

# How long an item stays among those that a user counts for while there are too many of them: what is left of a count
# then is 1/e in the longest live window (engine.stream.popularity).
_COUNTED_S: Final = int(POPULARITY_WINDOWS_S["7d"])
# A showing that is so many half-lives old says next to nothing: 1 of 256.
_HALF_LIVES: Final = 8


def _all_types() -> dict[str, int]:
    return {kind.name.lower(): FOREVER_S for kind in EventType if kind not in (EventType.IMPRESSION, EventType.RETURN)}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a user is kept.

    event_ids, event_ids_s: an event that comes again within so many seconds, and so many later events of its user,
    counts once. counted_items: of so many items is remembered when the user turned to them, overall and on a surface,
    so that they count once (engine.features.user_counts).
    seen_items: of each type of event. remembered_s: by the type's name, how long before the latest event of a type
    another one is kept; a type that is not named is not. impression_items: of how many items showings are counted.
    """

    session_events: int = 50
    seen_items: int = 5_000
    event_ids: int = 1_000
    event_ids_s: int = 86_400
    counted_items: int = 500
    remembered_s: Mapping[str, int] = field(default_factory=_all_types)
    impression_items: int = 500
    impression_half_life_s: float = 86_400.0

    def kept(self) -> Kept:
        """The same for the kernel."""
        kept_s = np.zeros(256, np.int64)
        kept_s[EventType.IMPRESSION] = int(_HALF_LIVES * self.impression_half_life_s)
        for name, seconds in self.remembered_s.items():
            kept_s[EventType[name.upper()]] = seconds
        memory = Memory(kept_s, self.seen_items, self.impression_items, self.impression_half_life_s)
        counted = 2 * self.counted_items
        return Kept(self.session_events, self.event_ids, self.event_ids_s, counted, _COUNTED_S, memory)


class LiveState(NamedTuple):
    """One user; `log_partition` and `offset` name the last event that was applied, offset -1 for none."""

    log_partition: int
    offset: int
    interaction_count: int
    purchase_count: int
    session: bytes
    event_ids: bytes
    arrivals: bytes
    places: bytes
    seen: bytes

    @staticmethod
    def empty() -> "LiveState":
        return _EMPTY


_EMPTY: Final = LiveState(0, -1, 0, 0, b"", b"", b"", b"", b"")


@dataclass(frozen=True, slots=True)
class LiveView:
    """What a request reads of a live state."""

    interaction_count: int
    purchase_count: int
    session: Session
    seen: SeenItems


def log_partition(log: str, partition: int) -> int:
    """The name of one partition of one incarnation of the log, uint64: offsets compare within one of them only."""
    return xxhash.xxh3_64_intdigest(f"{log}/{partition}".encode())


def clamped_ms(time_ms: int, received_ms: int) -> int:
    """The time that counts: a client's clock that runs ahead cannot put an event after its arrival."""
    return min(time_ms, received_ms)


def pack_state(state: LiveState) -> bytes:
    """The state as stored."""
    header = STATE_HEADER.pack(
        STATE_VERSION,
        state.interaction_count,
        state.purchase_count,
        len(state.session) // EVENT,
        len(state.event_ids) // KEY,
        state.log_partition,
        state.offset,
        len(state.places) // ENTRY,
    )
    return b"".join((header, state.session, state.event_ids, state.arrivals, state.places, state.seen))


def unpack_state(blob: bytes | None) -> LiveState:
    """The state of `pack_state`, or of a version before; empty for None.

    Raises RecordError for other versions and for truncated bytes.
    """
    if not blob:
        return LiveState.empty()
    blob = upgraded(blob)
    interactions, purchases, log, offset, session_end, ids_end, arrivals_end, places_end = _parts(blob)
    read_seen(blob[places_end:])
    return LiveState(
        log,
        offset,
        interactions,
        purchases,
        blob[HEADER:session_end],
        blob[session_end:ids_end],
        blob[ids_end:arrivals_end],
        blob[arrivals_end:places_end],
        blob[places_end:],
    )


def view_state(blob: bytes | None) -> LiveView:
    """A stored state as requests read it; empty for None. Raises RecordError as `unpack_state` does."""
    if not blob:
        return LiveView(0, 0, Session.empty(), SeenItems.none())
    blob = upgraded(blob)
    interactions, purchases, _, _, session_end, _, _, places_end = _parts(blob)
    session = unpack_session(blob[HEADER:session_end])
    return LiveView(interactions, purchases, session, read_seen(blob[places_end:]))


def _parts(blob: bytes) -> tuple[int, int, int, int, int, int, int, int]:
    """Interactions, purchases, log partition and offset; and where session, event ids, arrivals and places end."""
    if blob[0] != STATE_VERSION:
        raise RecordError(f"live state version {blob[0]} is unknown; this engine reads {STATE_VERSION}")
    if len(blob) < HEADER:
        raise RecordError(f"live state of {len(blob)} bytes is truncated")
    _, interactions, purchases, event_count, id_count, log, offset, place_count = STATE_HEADER.unpack_from(blob)
    session_end = HEADER + event_count * EVENT
    ids_end = session_end + id_count * KEY
    arrivals_end = ids_end + id_count * WORD
    places_end = arrivals_end + place_count * ENTRY
    if len(blob) < places_end:
        raise RecordError(f"live state of {len(blob)} bytes is truncated")
    return interactions, purchases, log, offset, session_end, ids_end, arrivals_end, places_end
