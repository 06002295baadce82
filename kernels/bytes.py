"""Packed buffers, little-endian: numbers, runs of bytes, and where things stand in a user's live state."""

import struct
from typing import Final

import numba
import numpy as np
from numba import types

from engine.kernels.signatures import BYTES, EXACT

STATE_VERSION: Final = 3
# The header of a live state: version, interactions, purchases, session events, remembered ids, log partition, offset,
# counted places. The regions follow, see engine.stream.state.
STATE_HEADER: Final = struct.Struct("<BIIHHQqH")
HEADER: Final = STATE_HEADER.size
INTERACTIONS, PURCHASES, EVENT_COUNT, ID_COUNT, LOG, OFFSET, PLACE_COUNT = (
    struct.calcsize(STATE_HEADER.format[:end]) for end in range(2, 9)
)
# Bytes of a session's event, of a remembered event id, and of a number in a column of u32.
EVENT, KEY, WORD = 17, 8, 4
EVENT_TIME, EVENT_TYPE = 8, 16
SESSION_EVENT: Final = np.dtype(
    {
        "names": ["item_key", "timestamp_ms", "event_type"],
        "formats": ["<i8", "<i8", "u1"],
        "offsets": [0, EVENT_TIME, EVENT_TYPE],
        "itemsize": EVENT,
    }
)


@numba.njit(types.int64(BYTES, types.int64, types.int64), **EXACT)
def load(buffer, at, size):  # type: ignore[no-untyped-def]
    """A little-endian number; of 8 bytes a signed one, else unsigned."""
    value = np.uint64(0)
    for byte in range(size):
        value |= np.uint64(buffer[at + byte]) << np.uint64(8 * byte)
    return np.int64(value)


@numba.njit(types.void(types.uint8[::1], types.int64, types.int64, types.int64), **EXACT)
def store(buffer, at, size, value):  # type: ignore[no-untyped-def]
    bits = np.uint64(value)
    for byte in range(size):
        buffer[at + byte] = np.uint8((bits >> np.uint64(8 * byte)) & np.uint64(0xFF))


@numba.njit(types.void(types.uint8[::1], types.int64, BYTES, types.int64, types.int64), **EXACT)
def copy_bytes(target, at, source, start, end):  # type: ignore[no-untyped-def]
    # ExperimentData from zero in slices: places that might be negative would be copied one by one.
    into, found = target[at : at + end - start], source[start:end]
    for place in range(len(found)):
        into[place] = found[place]
