"""Numbers and runs of bytes in packed buffers, little-endian."""

import numba
import numpy as np
from numba import types

from engine.kernels.signatures import BYTES, EXACT


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
    # Counted from zero in slices: places that might be negative would be copied one by one.
    into, found = target[at : at + end - start], source[start:end]
    for place in range(len(found)):
        into[place] = found[place]
