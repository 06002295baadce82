"""Messages of the event log to the events in them, as columns: what the fold reads, and nothing per event besides."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import AnyStr, Final

import numpy as np
import xxhash

from engine.contract.events import SCHEMA_VERSION, EventFields, decode
from engine.contract.limits import EVENT_TEXTS, MAX_ITEM_COUNT, TIME_END_S
from engine.errors import PoisonMessage
from engine.kernels.event_scan import (
    EVENT_FIELDS,
    EVENT_ID,
    ITEM_ID,
    RECEIVED_MS,
    SURFACE,
    TIME_MS,
    TYPE,
    USER_ID,
    scan_events,
)
from engine.stream.protocols import Message
from engine.stream.state import clamped_ms
from engine.types import Int64Array
from engine_client.v1 import event_pb2 as pb

# Clocks of two servers differ by less.
MAX_AHEAD_MS: Final = 300_000
_UNKNOWN: Final = pb.EVENT_TYPE_UNSPECIFIED
TEXT_LIMITS: Final = np.zeros(EVENT_FIELDS, np.int64)
for _name, _most_bytes in EVENT_TEXTS.items():
    TEXT_LIMITS[pb.Event.DESCRIPTOR.fields_by_name[_name].number] = _most_bytes


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The events of some messages, in log order within each partition; m of them, poison left out.

    Args:
        ends: the last offset of each partition that has a message here, whatever that one holds.
        partitions, offsets: int64 (m,), places in the log.
        user_ids, surfaces: m texts.
        id_digests: int64 (m,), 8 bytes each that stand for an event id, as they are stored.
        item_keys: int64 (m,). event_types: int64 (m,), engine.types.EventType.
        times_ms: int64 (m,), Unix milliseconds, never after the server took the event in: a client's clock that runs
            ahead cannot put an event after its arrival.
        received_s: int64 (m,), Unix seconds, when the server took the event in.

    No time is after the clock of the machine that reads, give or take MAX_AHEAD_MS: a server whose clock is wrong must
    not freeze what is counted.
    """

    ends: Mapping[int, int]
    partitions: Int64Array
    offsets: Int64Array
    user_ids: Sequence[str]
    surfaces: Sequence[str]
    id_digests: Int64Array
    item_keys: Int64Array
    event_types: Int64Array
    times_ms: Int64Array
    received_s: Int64Array

    def surface_keys(self) -> Int64Array:
        """int64 (m,): 8 bytes that stand for each surface, 0 for none."""
        known = {surface: xxhash.xxh3_64_intdigest(surface.encode()) for surface in set(self.surfaces)}
        known[""] = 0
        return np.fromiter(map(known.__getitem__, self.surfaces), np.uint64, len(self.surfaces)).view(np.int64)

    def share(self, number: int, count: int) -> "EventBatch":
        """The part that is of the partitions p with p mod `count` = `number`."""
        ends = {partition: last for partition, last in self.ends.items() if partition % count == number}
        rows = np.flatnonzero(self.partitions % count == number)
        places = rows.tolist()
        return EventBatch(
            ends,
            self.partitions[rows],
            self.offsets[rows],
            [self.user_ids[place] for place in places],
            [self.surfaces[place] for place in places],
            self.id_digests[rows],
            self.item_keys[rows],
            self.event_types[rows],
            self.times_ms[rows],
            self.received_s[rows],
        )


def read_events(messages: Sequence[Message]) -> tuple[EventBatch, list[tuple[Message, str]]]:
    """The events of messages, and the poison ones with their reasons.

    The plain messages are read all at once (engine.kernels.event_scan). `decode` reads any other one, and judges
    what is poison.

    Cost: about 2 µs a message, and for one that is out of the ordinary (a text that is not ASCII) 10 µs more.
    """
    partitions, offsets, _, payloads = zip(*messages, strict=True) if messages else ((), (), (), ())
    joined = b"".join(payloads)
    scanned = scan_events(
        np.frombuffer(joined, np.uint8),
        np.fromiter(accumulate(map(len, payloads)), np.int64, len(payloads)),
        SCHEMA_VERSION,
        TEXT_LIMITS,
        MAX_ITEM_COUNT,
        TIME_END_S,
    )
    kinds, times_ms, arrivals_ms = scanned[:, TYPE], scanned[:, TIME_MS], scanned[:, RECEIVED_MS]
    poison: list[tuple[Message, str]] = []
    apart: dict[int, EventFields] = {}
    for row in np.flatnonzero(kinds == _UNKNOWN).tolist():
        try:
            _, fields, received_ms = decode(payloads[row])
        except PoisonMessage as error:
            poison.append((messages[row], str(error)))
            continue
        apart[row] = fields
        kinds[row], times_ms[row] = fields.type, clamped_ms(fields.time_ms, received_ms)
        arrivals_ms[row] = received_ms
    latest_ms = time.time_ns() // 1_000_000 + MAX_AHEAD_MS
    rows = np.flatnonzero(kinds != _UNKNOWN)
    columns = scanned[rows].T.tolist()

    def texts(source: AnyStr, column: int) -> list[AnyStr]:
        return [source[start:end] for start, end in zip(columns[column], columns[column + 1], strict=True)]

    # As many characters as bytes: a place in one is the same place in the other.
    characters = joined.decode("latin-1")
    event_ids, user_ids = texts(joined, EVENT_ID), texts(characters, USER_ID)
    item_ids, surfaces = texts(joined, ITEM_ID), texts(characters, SURFACE)
    for place, row in enumerate(rows.tolist() if apart else ()):
        if row in apart:
            fields = apart[row]
            event_ids[place], user_ids[place] = fields.event_id.encode(), fields.user_id
            item_ids[place], surfaces[place] = fields.item_id.encode(), fields.surface
    batch = EventBatch(
        dict(zip(partitions, offsets, strict=True)),
        np.array(partitions, np.int64)[rows],
        np.array(offsets, np.int64)[rows],
        user_ids,
        surfaces,
        _hashes(event_ids).byteswap(),  # xxhash writes digests big-endian
        _hashes(item_ids),
        kinds[rows] - 1,  # the API's codes leave 0 to "unspecified"
        np.minimum(times_ms[rows], latest_ms),
        np.minimum(arrivals_ms[rows], latest_ms) // 1000,
    )
    return batch, poison


def _hashes(texts: Sequence[bytes]) -> Int64Array:
    """int64 (n,), XXH3 of UTF-8: the same keys as engine.types.item_key."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, texts), np.uint64, len(texts)).view(np.int64)
