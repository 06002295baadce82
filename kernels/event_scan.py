"""The events of many messages at once, read from the bytes of their protobuf form (proto/engine/v1/event.proto)."""

from typing import Final

import numba
import numpy as np
from numba import types

from engine.kernels.arrays import Int64Array, UInt8Array
from engine.kernels.signatures import BYTES, EXACT, ROWS

# Columns of a scan: where texts start and end in the buffer, then the event's type, its time and its arrival.
EVENT_ID, USER_ID, ITEM_ID, SURFACE, TYPE, TIME_MS, RECEIVED_MS = 0, 2, 4, 6, 8, 9, 10
COLUMNS: Final = 11

# Field numbers of Event, of LoggedEvent and of Timestamp; the first are also places in `text_limits`.
_EVENT_ID, _USER_ID, _TYPE, _ITEM_ID, _TIME, _SURFACE, _VALUE, _DWELL_MS, _POSITION = 1, 2, 3, 4, 5, 6, 10, 11, 13
EVENT_FIELDS: Final = 14
_VERSION, _EVENT, _RECEIVED = 1, 2, 3
_SECONDS, _NANOS = 1, 2
_VARINT, _FIXED64, _LENGTH = 0, 1, 2
_PURCHASE, _DWELL, _RETURN = 5, 6, 7
# The bits of the smallest double that is not finite: those of every finite, positive one are below them.
_INFINITY_BITS: Final = 0x7FF0000000000000


def scan_events(
    buffer: UInt8Array, ends: Int64Array, schema_version: int, text_limits: Int64Array, position_limit: int,
    time_end_s: int,
) -> Int64Array:  # fmt: skip
    """Read every message that is as most of them are, and say which ones are not.

    A plain message is one LoggedEvent of this schema version with both an event and when it was received, no field
    twice and none that is not declared, with texts of printable ASCII within their limits, ids that are not empty, a
    known type, a value for a purchase or return alone and a duration for a dwell event alone. All else is told by
    nothing but a type of 0, whether it is good or bad: whoever asks reads that with the protobuf library, which is the
    judge of it.

    Args:
        buffer: uint8, the messages one after the other. ends: int64 (n,), where each of them ends; ascending.
        text_limits: int64 (EVENT_FIELDS,), most bytes of a text by its field's number; 0 for what is no text.
        position_limit: the largest position. time_end_s: times are before it, in seconds since 1970.

    Returns:
        int64 (n, COLUMNS): for EVENT_ID, USER_ID, ITEM_ID and SURFACE where the text starts in the buffer and, in the
        next column, where it ends; TYPE, the API's code, 0 where the message is not plain and nothing else of its row
        means anything; TIME_MS, milliseconds since 1970, no later than it was received; RECEIVED_MS, the same
        of its arrival.

    Raises:
        ValueError: ends that do not ascend or lie beyond the buffer, or limits for another number of fields.

    Cost: O(bytes), about 0.2 µs a message.
    Source: protobuf.dev/programming-guides/encoding.
    """
    if len(text_limits) != EVENT_FIELDS:
        raise ValueError(f"{len(text_limits)} limits for {EVENT_FIELDS} fields")
    found: Int64Array = _scan_events(buffer, ends, schema_version, text_limits, position_limit, time_end_s)
    return found


@numba.njit(types.UniTuple(types.int64, 2)(BYTES, types.int64, types.int64, types.int64), **EXACT)
def _varint(buffer, at, end, most_bytes):  # type: ignore[no-untyped-def]
    """A number and where it ends; -1 where it has more than `most_bytes` bytes (9 at most) or is cut off."""
    value = np.int64(0)
    for place in range(min(most_bytes, end - at)):
        byte = np.int64(buffer[at + place])
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    return 0, -1


@numba.njit(types.UniTuple(types.int64, 2)(BYTES, types.int64, types.int64), **EXACT)
def _span(buffer, at, end):  # type: ignore[no-untyped-def]
    """Where the content of a field with a length starts and ends; -1 where it goes beyond `end`."""
    # Three bytes of a length are more than any plain message needs.
    length, start = _varint(buffer, at, end, 3)
    if start < 0 or length > end - start:
        return 0, -1
    return start, start + length


@numba.njit(types.int64(BYTES, types.int64, types.int64, types.int64), **EXACT)
def _timestamp_ms(buffer, at, end, time_end_s):  # type: ignore[no-untyped-def]
    """Milliseconds since 1970; -1 for what is not plain."""
    seconds, nanos, seen = 0, 0, np.int64(0)
    while at < end:
        field, wire = np.int64(buffer[at]) >> 3, np.int64(buffer[at]) & 7
        if field > _NANOS or wire != _VARINT or seen & (1 << field):
            return -1
        seen |= 1 << field
        value, at = _varint(buffer, at + 1, end, 9)
        if at < 0:
            return -1
        if field == _SECONDS:
            seconds = value
        elif field == _NANOS:
            nanos = value
        else:
            return -1
    if seconds >= time_end_s or nanos >= 1_000_000_000:
        return -1
    return seconds * 1000 + nanos // 1_000_000


@numba.njit(types.boolean(BYTES, types.int64, types.int64), **EXACT)
def _is_printable(buffer, start, end):  # type: ignore[no-untyped-def]
    # Without a way out half-way, so that it is computed for many bytes at once.
    printable = True
    for at in range(start, end):
        printable &= 0x20 <= buffer[at] <= 0x7E
    return printable


@numba.njit(types.int64(BYTES, types.int64, types.int64, ROWS, types.int64, types.int64, types.int64[::1]), **EXACT)
def _event(buffer, at, end, text_limits, position_limit, time_end_s, row):  # type: ignore[no-untyped-def]
    """Fill in a row but for its type, which is returned; 0 for what is not plain."""
    kind, seen = 0, np.int64(0)
    while at < end:
        # Every declared field's tag is one byte; another one has its high bit set, and a number that none has.
        field, wire = np.int64(buffer[at]) >> 3, np.int64(buffer[at]) & 7
        if field >= len(text_limits) or seen & (1 << field):
            return 0
        seen |= 1 << field
        at += 1
        if text_limits[field] > 0 and wire == _LENGTH:
            start, at = _span(buffer, at, end)
            if at < 0 or at - start > text_limits[field] or not _is_printable(buffer, start, at):
                return 0
            column = -1
            if field == _EVENT_ID:
                column = EVENT_ID
            elif field == _USER_ID:
                column = USER_ID
            elif field == _ITEM_ID:
                column = ITEM_ID
            elif field == _SURFACE:
                column = SURFACE
            if column >= 0:
                row[column], row[column + 1] = start, at
        elif field == _TYPE and wire == _VARINT:
            kind, at = _varint(buffer, at, end, 9)
            if kind > _RETURN:
                return 0
        elif field == _TIME and wire == _LENGTH:
            start, at = _span(buffer, at, end)
            if at < 0:
                return 0
            row[TIME_MS] = _timestamp_ms(buffer, start, at, time_end_s)
            if row[TIME_MS] < 0:
                return 0
        elif field == _VALUE and wire == _FIXED64:
            if end - at < 8:
                return 0
            bits = np.uint64(0)
            for byte in range(8):
                bits |= np.uint64(buffer[at + byte]) << np.uint64(8 * byte)
            if bits >= np.uint64(_INFINITY_BITS):
                return 0
            at += 8
        elif field == _DWELL_MS and wire == _VARINT:
            value, at = _varint(buffer, at, end, 9)
            if value == 0:
                return 0
        elif field == _POSITION and wire == _VARINT:
            value, at = _varint(buffer, at, end, 9)
            if value > position_limit:
                return 0
        else:
            return 0
        if at < 0:
            return 0
    if not seen & (1 << _TIME):
        return 0
    if row[EVENT_ID] == row[EVENT_ID + 1] or row[USER_ID] == row[USER_ID + 1] or row[ITEM_ID] == row[ITEM_ID + 1]:
        return 0
    if bool(seen & (1 << _VALUE)) != (kind in (_PURCHASE, _RETURN)):
        return 0
    if bool(seen & (1 << _DWELL_MS)) != (kind == _DWELL):
        return 0
    return kind


@numba.njit(
    types.int64(BYTES, types.int64, types.int64, types.int64, ROWS, types.int64, types.int64, types.int64[::1]),
    **EXACT,
)
def _message(buffer, at, end, schema_version, text_limits, position_limit, time_end_s, row):  # type: ignore[no-untyped-def]
    """Fill in a row but for its type, which is returned; 0 for what is not plain."""
    kind, received_ms, seen = 0, 0, np.int64(0)
    while at < end:
        field, wire = np.int64(buffer[at]) >> 3, np.int64(buffer[at]) & 7
        if field > _RECEIVED or seen & (1 << field):
            return 0
        seen |= 1 << field
        at += 1
        if field == _VERSION and wire == _VARINT:
            version, at = _varint(buffer, at, end, 9)
            if at < 0 or version != schema_version:
                return 0
        elif field == _EVENT and wire == _LENGTH:
            start, at = _span(buffer, at, end)
            kind = 0 if at < 0 else _event(buffer, start, at, text_limits, position_limit, time_end_s, row)
            if kind == 0:
                return 0
        elif field == _RECEIVED and wire == _LENGTH:
            start, at = _span(buffer, at, end)
            received_ms = -1 if at < 0 else _timestamp_ms(buffer, start, at, time_end_s)
            if received_ms < 0:
                return 0
        else:
            return 0
    if seen != (1 << _VERSION) | (1 << _EVENT) | (1 << _RECEIVED):
        return 0
    row[TIME_MS] = min(row[TIME_MS], received_ms)
    row[RECEIVED_MS] = received_ms
    return kind


@numba.njit(types.int64[:, ::1](BYTES, ROWS, types.int64, ROWS, types.int64, types.int64), **EXACT)
def _scan_events(buffer, ends, schema_version, text_limits, position_limit, time_end_s):  # type: ignore[no-untyped-def]
    start = 0
    for message in range(len(ends)):
        if ends[message] < start or ends[message] > len(buffer):
            raise ValueError("messages end outside of the buffer, or before they start")
        start = ends[message]
    found = np.zeros((len(ends), COLUMNS), np.int64)
    start = 0
    for message in range(len(ends)):
        row = found[message]
        row[TYPE] = _message(buffer, start, ends[message], schema_version, text_limits, position_limit, time_end_s, row)
        start = ends[message]
    return found
