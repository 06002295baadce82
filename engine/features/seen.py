"""What is known of a user's items, to and from the bytes that Redis holds (engine.kernels.seen_items)."""

from collections.abc import Mapping

import numpy as np

from engine.errors import RecordError
from engine.features.state import SeenItems, Session
from engine.kernels.seen_items import SeenColumns, unpack_seen
from engine.kernels.seen_items import pack_seen as pack_columns
from engine.types import EventType, Int64Array


def pack_seen(seen: SeenItems) -> bytes:
    """Items by rising event type and time, as stored. Raises ValueError for another order."""
    return pack_columns(SeenColumns(seen.item_keys, seen.event_types, seen.times_s, seen.counts)).tobytes()


def read_seen(packed: bytes | None) -> SeenItems:
    """The items of `pack_seen`; nothing for None. Raises RecordError for bytes that are no such items."""
    if not packed:
        return SeenItems.none()
    columns = unpack_seen(np.frombuffer(packed, np.uint8))
    if columns is None:
        raise RecordError(f"seen items of {len(packed)} bytes are truncated or damaged")
    return SeenItems(*columns)


def in_order(seen: SeenItems) -> SeenItems:
    """By rising event type and time, as they are packed; ties keep their order."""
    order = np.lexsort((seen.times_s, seen.event_types))
    return SeenItems(seen.item_keys[order], seen.event_types[order], seen.times_s[order], seen.counts[order])


def most_recent(seen: SeenItems, limit: int, remembered_s: Mapping[str, int]) -> SeenItems:
    """Of items in order, of each type the latest `limit`, and no longer than remembered_s (by the type's name; one that
    is not named: never) before the latest of them; impressions left out. Cost: some 30 µs.
    """
    parts = []
    for name, seconds in remembered_s.items():
        kind = EventType[name.upper()]
        start, stop = np.searchsorted(seen.event_types, [kind, kind + 1]).tolist()
        if stop > start and seconds:
            times = seen.times_s[start:stop]
            start = max(start + int(np.searchsorted(times, times[-1] - seconds)), stop - limit)
            parts.append((int(kind), slice(start, stop)))
    kept = SeenItems.none()
    for _, part in sorted(parts, key=lambda one: one[0]):
        kept = kept.joined(
            SeenItems(seen.item_keys[part], seen.event_types[part], seen.times_s[part], seen.counts[part])
        )
    return kept


def of_session(session: Session) -> SeenItems:
    """The latest event of each type on each item, impressions left out; in order."""
    found: dict[tuple[int, int], int] = {}
    columns = (session.event_types.tolist(), session.item_keys.tolist(), session.timestamps_ms.tolist())
    for event_type, key, time_ms in zip(*columns, strict=True):
        if event_type != EventType.IMPRESSION:
            found[event_type, key] = max(found.get((event_type, key), 0), time_ms // 1000)
    return in_order(
        SeenItems(
            np.array([key for _, key in found], np.int64),
            np.array([event_type for event_type, _ in found], np.uint8),
            np.array(list(found.values()), np.int64),
            np.ones(len(found), np.float32),
        )
    )


def of_keys_alone(keys: Int64Array, time_s: int, purchases: int) -> SeenItems:
    """What earlier versions stored: items that somebody turned to, without how and when.

    Of somebody who has bought something, any of them may be a purchase, and was made at this time at the latest; of
    others all are views.
    """
    return SeenItems.of(keys, EventType.PURCHASE if purchases else EventType.VIEW, time_s)
