"""A table of floats in a device's memory, kept like one in the processor's."""

import ctypes
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from engine.adapters.cuda.device import TURNS, check, cuda_runtime
from engine.types import Float32Array, Int64Array

# Rows that lie closer than this are copied with what is between them: a call costs as much as some 64 KB more.
_GAP_BYTES: Final = 64 << 10
# Searches wait for a copy that is under way, so that none is longer than a few milliseconds.
_CHUNK_BYTES: Final = 16 << 20

Copy = Callable[[int, int, int], None]
"""From the processor's memory to the device's: (to, from, bytes)."""


class DeviceTable:
    """Keeps `value`, an OrtValue float32 (rows, width), equal to a table of the host.

    Any number of threads may call `copy_rows`; readers on the device may see a row half old.
    """

    def __init__(self, host: Float32Array, device: str, device_id: int = 0) -> None:
        """Copy a table to the device.

        Args:
            host: float32 (rows, width), C-contiguous; kept: later transfers read from it.
            device: "cuda", or "cpu", which has its own copy as well.

        Raises ConfigError where CUDA fails. Cost: 20 GB/s or so.
        """
        self._host = host
        self._copy = _copy_to(device, device_id)
        self.value = ort.OrtValue.ortvalue_from_shape_and_type(list(host.shape), np.float32, device, device_id)
        self._address: int = self.value.data_ptr()
        self._copy_run(0, len(host))

    def copy_rows(self, rows: Int64Array) -> None:
        """Bring these rows, in any order, up to what the host's table holds. Cost: a call for each run of rows."""
        if not len(rows):
            return
        ascending = np.unique(rows)
        ends = np.flatnonzero(np.diff(ascending) * self._row_bytes > _GAP_BYTES)
        firsts = ascending[np.concatenate([[0], ends + 1])]
        lasts = ascending[np.concatenate([ends, [len(ascending) - 1]])]
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            self._copy_run(first, last + 1)

    @property
    def _row_bytes(self) -> int:
        return int(self._host.strides[0])

    def _copy_run(self, first: int, stop: int) -> None:
        step = max(1, _CHUNK_BYTES // self._row_bytes)
        for start in range(first, stop, step):
            count = min(step, stop - start)
            offset = start * self._row_bytes
            with TURNS:
                self._copy(self._address + offset, self._host.ctypes.data + offset, count * self._row_bytes)


def _copy_to(device: str, device_id: int) -> Copy:
    if device == "cpu":
        return _copy_on_host
    runtime = cuda_runtime()
    to_device: Any = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice

    def copy(target: int, source: int, size: int) -> None:
        # Which device is meant is a setting of the calling thread.
        check(runtime.cudaSetDevice(device_id))
        check(runtime.cudaMemcpy(target, source, size, to_device))
        # From memory that is not pinned it may come back before everything is there (CUDA's notes on synchronization).
        check(runtime.cudaStreamSynchronize(0))

    return copy


def _copy_on_host(target: int, source: int, size: int) -> None:
    ctypes.memmove(target, source, size)
