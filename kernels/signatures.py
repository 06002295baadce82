"""The array types that kernels are compiled for, and the flags that they share."""

from typing import Any

from numba import types

from engine.kernels import cache

# Every module of kernels imports this one before it declares a kernel.
cache.install()


def read_only(dtype: Any, ndim: int = 1, layout: str = "C") -> Any:
    """A numba array type that takes writable and read-only arrays alike."""
    return types.Array(dtype, ndim, layout, readonly=True)


FLOATS = read_only(types.float32)
ROWS = read_only(types.int64)
BYTES = read_only(types.uint8)
BOOLS = read_only(types.boolean)
MATRIX = read_only(types.float32, 2)
# A table may be a slice of columns of a wider one, and such a slice is not contiguous.
STRIDED_MATRIX = read_only(types.float32, 2, "A")

EXACT: dict[str, Any] = {"nogil": True, "cache": True}
# Sums may be reordered and fused, which lets dot products vectorize; NaN and infinity keep their meaning.
REORDERED: dict[str, Any] = {**EXACT, "fastmath": {"reassoc", "contract"}}
