"""Messages of the event log to the events in them, as columns: what the fold reads, and nothing per event besides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xxhash

from engine.errors import PoisonMessage
from engine.rpc.validate import MAX_ATTRIBUTE_BYTES, MAX_ID_BYTES, MAX_ITEM_COUNT, MAX_SURFACE_BYTES, TIME_END_S
from engine.rpc.validate_events import MAX_EVENT_ID_BYTES
from engine.stream.codec import SCHEMA_VERSION, decode
from engine.stream.processor import Message
from engine.types import Int64Array
from engine.v1 import event_pb2 as pb
from kernels.event_scan import EVENT_FIELDS, scan_events

_UNKNOWN: Final = pb.EVENT_TYPE_UNSPECIFIED
_IMPRESSION: Final = pb.EVENT_TYPE_IMPRESSION


def _text_limits() -> Int64Array:
    limits = np.zeros(EVENT_FIELDS, np.int64)
    most = {"event_id": MAX_EVENT_ID_BYTES, "surface": MAX_SURFACE_BYTES}
    most |= dict.fromkeys(("user_id", "item_id", "session_id", "request_id"), MAX_ID_BYTES)
    most |= dict.fromkeys(("device", "country"), MAX_ATTRIBUTE_BYTES)
    for name, most_bytes in most.items():
        limits[pb.Event.DESCRIPTOR.fields_by_name[name].number] = most_bytes
    return limits


_TEXT_LIMITS: Final = _text_limits()


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The events of some messages, in log order within each partition; m of them, impressions and poison left out.

    Args:
        ends: the last offset of each partition that has a message here, whatever that one holds.
        partitions, offsets: int64 (m,), places in the log.
        user_ids, surfaces: m texts.
        id_digests: int64 (m,), 8 bytes each that stand for an event id, as they are stored.
        item_keys: int64 (m,). event_types: int64 (m,), engine.types.EventType.
        times_ms: int64 (m,), Unix milliseconds, never after the server took the event in: a client's clock that runs
            ahead cannot put an event after its arrival.
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
        )


def read_events(messages: Sequence[Message]) -> tuple[EventBatch, list[tuple[Message, str]]]:
    """The events of messages, and the poison ones with their reasons.

    What is as most messages are is read here all at once (kernels.event_scan); any other one by `codec.decode`, which
    is the judge of what is poison.

    Cost: about 2 µs a message, and for one that is out of the ordinary (a text that is not ASCII) 10 µs more.
    """
    payload = b"".join([message.payload for message in messages])
    ends = np.cumsum(np.fromiter((len(message.payload) for message in messages), np.int64, len(messages)))
    buffer = np.frombuffer(payload, np.uint8)
    scanned = scan_events(buffer, ends, SCHEMA_VERSION, _TEXT_LIMITS, MAX_ITEM_COUNT, TIME_END_S)
    # As many characters as bytes: a place in one is the same place in the other.
    text = payload.decode("latin-1")
    last: dict[int, int] = {}
    poison: list[tuple[Message, str]] = []
    event_ids: list[bytes] = []
    user_ids: list[str] = []
    item_ids: list[bytes] = []
    surfaces: list[str] = []
    numbers: list[tuple[int, int, int, int]] = []
    for message, row in zip(messages, scanned.tolist(), strict=True):
        id_at, id_end, user_at, user_end, item_at, item_end, surface_at, surface_end, kind, time_ms = row
        partition, offset, _, content = message
        last[partition] = offset
        if kind == _IMPRESSION:
            continue
        if kind != _UNKNOWN:
            event_ids.append(payload[id_at:id_end])
            user_ids.append(text[user_at:user_end])
            item_ids.append(payload[item_at:item_end])
            surfaces.append(text[surface_at:surface_end])
            numbers.append((partition, offset, kind, time_ms))
            continue
        try:
            _, fields, received_ms = decode(content)
        except PoisonMessage as error:
            poison.append((message, str(error)))
            continue
        if fields.type != _IMPRESSION:
            event_ids.append(fields.event_id.encode())
            user_ids.append(fields.user_id)
            item_ids.append(fields.item_id.encode())
            surfaces.append(fields.surface)
            numbers.append((partition, offset, fields.type, min(fields.time_ms, received_ms)))
    partitions, offsets, kinds, times_ms = np.ascontiguousarray(np.array(numbers, np.int64).reshape(-1, 4).T)
    batch = EventBatch(
        last,
        partitions,
        offsets,
        user_ids,
        surfaces,
        _hashes(event_ids).byteswap(),  # xxhash writes digests big-endian
        _hashes(item_ids),
        kinds - 1,  # the API's codes leave 0 to "unspecified"
        times_ms,
    )
    return batch, poison


def _hashes(texts: Sequence[bytes]) -> Int64Array:
    """int64 (n,), XXH3 of UTF-8: the same keys as engine.types.item_key."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, texts), np.uint64, len(texts)).view(np.int64)
