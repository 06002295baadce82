"""A mapped matrix followed by spare rows, in one contiguous range of memory.

Items that arrive while a bundle serves need rows in the bundle's own tables. A longer copy of a table would cost every
worker process a private half gigabyte. Here the file's pages stay shared, and a write (a new row, or a changed cell of
an old one) costs only the pages that it touches.
"""

import ctypes
import mmap
import os
import weakref
from pathlib import Path
from typing import Final

import numpy as np

from engine.errors import BundleError, described
from engine.types import Float32Array

# Not among the constants of Python's mmap module; the same on Linux and macOS.
_MAP_FIXED: Final = 0x10
_FAILED: Final = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def map_with_spare_rows(path: Path, row_count: int) -> Float32Array:
    """Map a .npy file of float32 (n, width), C order, followed by rows of zeros.

    The result may be written to: a write stays in this process and never reaches the file.

    Args:
        row_count: rows of the result, n or more.

    Returns:
        float32 (row_count, width), C-contiguous. The mapping goes when the last view of it does.

    Raises:
        BundleError: a file that is no such matrix, or memory that cannot be had.

    Cost: a few system calls; pages are read when touched, and zeros take no memory until they are written to.
    """
    try:
        known = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {described(error)}") from None
    if known.ndim != 2 or known.dtype != np.float32 or not known.flags.c_contiguous or len(known) > row_count:
        raise BundleError(f"{path}: {known.dtype} {known.shape} where at most {row_count} rows of float32 are expected")
    header = int(known.offset)
    width = known.shape[1]
    file_bytes = header + known.nbytes
    total = max(file_bytes, header + row_count * width * 4)
    address = _map(0, total, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, path)
    # The owner of the memory: NumPy's views keep it alive, and its end gives the mapping back.
    memory = (ctypes.c_char * total).from_address(address)
    weakref.finalize(memory, _libc.munmap, address, total)
    with path.open("rb") as file:
        # Over the beginning of the reserved range. After the end of the file, its last page is zeros.
        _map(address, file_bytes, mmap.MAP_PRIVATE | _MAP_FIXED, file.fileno(), path)
    return np.frombuffer(memory, np.float32, row_count * width, header).reshape(row_count, width)


def _map(address: int, length: int, flags: int, file: int, path: Path) -> int:
    mapped = _libc.mmap(address, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, file, 0)
    if mapped in (None, _FAILED):
        raise BundleError(f"{path}: {length} bytes cannot be mapped: {os.strerror(ctypes.get_errno())}")
    return int(mapped)
