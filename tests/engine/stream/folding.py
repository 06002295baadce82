"""Events straight into the fold, as no log would bring them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from engine.stream.events import EventBatch
from engine.stream.fold import Folded, fold
from engine.stream.state import Limits, LiveState, unpack_state
from engine.types import EventType


class StreamEvent(NamedTuple):
    """One event; `name` is its id."""

    offset: int
    item_key: int = 1
    event_type: int = EventType.CLICK
    time_ms: int = 0
    name: str = ""
    user_id: str = "u"
    partition: int = 3
    received_s: int = 0
    surface: str = "home"


def digest(event: StreamEvent) -> bytes:
    """What is stored of an event's id; without a name the offset is one."""
    return xxhash.xxh3_64_digest((event.name or f"#{event.offset}").encode())


def batch_of(events: Sequence[StreamEvent]) -> EventBatch:
    def column(values: Sequence[int]) -> np.ndarray:
        return np.array(values, np.int64)

    return EventBatch(
        {event.partition: event.offset for event in events},
        column([event.partition for event in events]),
        column([event.offset for event in events]),
        [event.user_id for event in events],
        [event.surface for event in events],
        np.frombuffer(b"".join(map(digest, events)), np.int64),
        column([event.item_key for event in events]),
        column([event.event_type for event in events]),
        column([event.time_ms for event in events]),
        column([event.received_s for event in events]),
    )


def fold_user(blob: bytes | None, events: Sequence[StreamEvent], limits: Limits | None = None, log: str = "") -> Folded:
    """Events of one user."""
    return fold([blob], np.zeros(len(events), np.int64), log, batch_of(events), limits or Limits())


def packed_after(events: Sequence[StreamEvent], blob: bytes | None = None, limits: Limits | None = None) -> bytes:
    """One user's state after events, as stored."""
    return fold_user(blob, events, limits).states.get(0, blob or b"")


def state_after(events: Sequence[StreamEvent], blob: bytes | None = None, limits: Limits | None = None) -> LiveState:
    return unpack_state(packed_after(events, blob, limits))
