"""An exact search on a CUDA device that reads every vector once, filters included (cuda_scan.cu)."""

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from engine.adapters.cuda.device import TURNS, check, cuda_runtime
from engine.adapters.cuda.program import Arguments, CudaProgram, DeviceBuffer, PinnedBuffer
from engine.errors import ConfigError, EngineError
from engine.retrieval.overfetch import Found
from engine.types import Float32Array, Int64Array, UInt8Array

_SOURCE: Final = Path(__file__).with_name("scan.cu")
_SAMPLE: Final = 49_152
_CAPACITY: Final = 8192
_MAX_K: Final = 2048
_BATCHES: Final = (8, 16, 32, 64)
_WIDTH: Final = 32  # vectors are padded to a multiple of it
_SCAN_THREADS, _SORT_THREADS, _THRESHOLD_THREADS = 256, 1024, 512
_BLOCKS_PER_PROCESSOR: Final = 2
_CHUNK: Final = 262_144
# A guess that fits one in a hundred thousand times fits the second time; equal scores without end never do.
_ATTEMPTS: Final = 4


class CudaScanSearcher:
    """A Searcher over float16 vectors on a device. Searches take turns, batches of up to 64 queries each."""

    filters = True
    filter_below = 0.75
    max_k = _MAX_K

    def __init__(self, vectors: Float32Array, device: int) -> None:
        """Compile the kernels and copy the vectors, float32 (n, dim), to the device in float16.

        Raises ConfigError where either fails. Cost: a second, and the copy; 2 * n * dim bytes there (dim padded to a
        multiple of 32), and bitmaps, 64 * n / 8 bytes, once something is filtered.
        """
        self._runtime = cuda_runtime()
        self._device = device
        check(self._runtime.cudaSetDevice(device))
        self._item_count, self._dim = vectors.shape
        self._width = -(-self._dim // _WIDTH) * _WIDTH
        self._stream = check(self._runtime.cudaStreamCreateWithFlags(self._runtime.cudaStreamNonBlocking))
        self._vectors = self._copied(vectors)
        self._bitmap_bytes = (self._item_count + 7) // 8
        self._bitmaps: DeviceBuffer | None = None
        self._bitmaps_sent: PinnedBuffer | None = None
        most = _BATCHES[-1]
        self._sent = PinnedBuffer(most * (2 * self._width + 4))
        self._answers = PinnedBuffer(most * (12 * _MAX_K + 4))
        self._given = DeviceBuffer(len(self._sent.bytes))
        self._counts = DeviceBuffer(4 * most)
        self._samples = DeviceBuffer(4 * most * _SAMPLE)
        self._thresholds = DeviceBuffer(4 * most)
        self._kept = DeviceBuffer(8 * most * _CAPACITY)
        self._bind(CudaProgram(_SOURCE, {"DIM": self._width, "SAMPLE": _SAMPLE, "CAPACITY": _CAPACITY}, device))

    @property
    def dim(self) -> int:
        return int(self._dim)

    @property
    def item_count(self) -> int:
        return int(self._item_count)

    def search(self, queries: Float32Array, k: int) -> Found:
        """See Searcher. Raises EngineError where the device fails."""
        return self._in_batches(queries, k, None)

    def search_eligible(self, queries: Float32Array, k: int, eligible: Sequence[UInt8Array]) -> Found:
        """See Searcher. Cost: the bitmaps go to the device before the search."""
        return self._in_batches(queries, k, eligible)

    def _in_batches(self, queries: Float32Array, k: int, eligible: Sequence[UInt8Array] | None) -> Found:
        most = _BATCHES[-1]
        found = [
            self._search(queries[first : first + most], k, None if eligible is None else eligible[first : first + most])
            for first in range(0, len(queries), most)
        ]
        if len(found) == 1:
            return found[0]
        return np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found])

    def _search(self, queries: Float32Array, k: int, eligible: Sequence[UInt8Array] | None) -> Found:
        ranks = np.full(len(queries), sample_rank(k, self._item_count), np.uint32)
        failed: np.ndarray[Any, Any]
        with TURNS:
            try:
                check(self._runtime.cudaSetDevice(self._device))
                if eligible is not None:
                    self._send_bitmaps(eligible)
                for _ in range(_ATTEMPTS):
                    rows, scores, counts = self._run(queries, k, ranks, eligible is not None)
                    failed = counts > _CAPACITY
                    wrong = (counts < k) & (ranks < _SAMPLE) | failed
                    if not wrong.any():
                        return rows, scores
                    ranks = np.where(wrong, adjusted_ranks(ranks, counts, k), ranks).astype(np.uint32)
            except ConfigError as error:
                raise EngineError(f"the GPU search failed: {error}") from None
        rows[failed] = -1  # not the best ones
        return rows, scores

    def _run(
        self, queries: Float32Array, k: int, ranks: np.ndarray[Any, Any], filtered: bool
    ) -> tuple[Int64Array, Float32Array, np.ndarray[Any, Any]]:
        count = len(queries)
        padded = next(size for size in _BATCHES if size >= count)
        sent = self._sent.bytes
        halves = sent[: padded * self._width * 2].view(np.float16).reshape(padded, self._width)
        halves[:count, : self._dim] = queries
        halves[:count, self._dim :] = halves[count:] = 0
        ranks_at = _BATCHES[-1] * self._width * 2
        sent[ranks_at : ranks_at + 4 * count].view(np.uint32)[:] = ranks
        self._copy(self._given.address, self._sent.address, ranks_at + 4 * count)
        self._query_count.value, self._k.value = count, k
        self._bitmaps_at.value = self._bitmaps.address if filtered and self._bitmaps else 0
        rows_at = 4 * _BATCHES[-1]
        scores_at = rows_at + 8 * count * k
        self._rows_at.value = self._answers.address + rows_at
        self._scores_at.value = self._answers.address + scores_at
        sample, scan = self._kernels[padded]
        sample.launch(-(-_SAMPLE // self._rows_per_block), _SCAN_THREADS, self._stream)
        self._set_thresholds.launch(count, _THRESHOLD_THREADS, self._stream)
        scan.launch(min(self._blocks, -(-self._item_count // self._rows_per_block)), _SCAN_THREADS, self._stream)
        self._sort_kept.launch(count, _SORT_THREADS, self._stream)
        check(self._runtime.cudaStreamSynchronize(self._stream))
        answers = self._answers.bytes[: scores_at + 4 * count * k].copy()
        return (
            answers[rows_at:scores_at].view(np.int64).reshape(count, k),
            answers[scores_at:].view(np.float32).reshape(count, k),
            answers[: 4 * count].view(np.uint32),
        )

    def _send_bitmaps(self, eligible: Sequence[UInt8Array]) -> None:
        if self._bitmaps is None or self._bitmaps_sent is None:
            size = _BATCHES[-1] * self._bitmap_bytes
            self._bitmaps, self._bitmaps_sent = DeviceBuffer(size), PinnedBuffer(size)
        for place, bitmap in enumerate(eligible):
            first = place * self._bitmap_bytes
            self._bitmaps_sent.bytes[first : first + self._bitmap_bytes] = bitmap
            # One at a time: the device reads one while the host prepares the next.
            self._copy(self._bitmaps.address + first, self._bitmaps_sent.address + first, self._bitmap_bytes)

    def _bind(self, program: CudaProgram) -> None:
        """Bind every kernel to its arguments; those that change from call to call are kept by name."""
        pointer, word = ctypes.c_void_p, ctypes.c_uint32
        self._query_count, self._k, self._bitmaps_at = word(), word(), pointer()
        self._rows_at, self._scores_at = pointer(), pointer()
        counts = pointer(self._counts.address)
        samples, thresholds = pointer(self._samples.address), pointer(self._thresholds.address)
        kept = pointer(self._kept.address)
        shared = (
            pointer(self._vectors.address),
            word(self._item_count),
            pointer(self._given.address),
            self._bitmaps_at,
            ctypes.c_uint64(self._bitmap_bytes),
            self._query_count,
        )
        sample, scan = Arguments(*shared, samples), Arguments(*shared, thresholds, counts, kept)
        self._kernels = {
            size: (program.kernel(f"take_sample_{size}", sample), program.kernel(f"scan_{size}", scan))
            for size in _BATCHES
        }
        ranks = pointer(self._given.address + _BATCHES[-1] * self._width * 2)
        self._set_thresholds = program.kernel("set_thresholds", Arguments(samples, ranks, thresholds, counts))
        self._sort_kept = program.kernel(
            "sort_kept",
            # Straight into the processor's memory, the counts first.
            Arguments(kept, counts, self._k, self._rows_at, self._scores_at, pointer(self._answers.address)),
            8 * _CAPACITY,
        )
        rows_per_warp = 32 if self._width <= 64 else 16
        self._rows_per_block = _SCAN_THREADS // 32 * rows_per_warp
        processors = check(
            self._runtime.cudaDeviceGetAttribute(
                self._runtime.cudaDeviceAttr.cudaDevAttrMultiProcessorCount, self._device
            )
        )
        self._blocks = _BLOCKS_PER_PROCESSOR * int(processors)

    def _copied(self, vectors: Float32Array) -> DeviceBuffer:
        buffer = DeviceBuffer(self._item_count * self._width * 2)
        within = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        for first in range(0, self._item_count, _CHUNK):
            part = vectors[first : first + _CHUNK]
            halves = np.zeros((len(part), self._width), np.float16)
            halves[:, : self._dim] = part
            address = buffer.address + first * self._width * 2
            check(self._runtime.cudaMemcpy(address, halves.ctypes.data, halves.nbytes, within))
        # Transfers from unpinned memory may still be running, and searches use another stream.
        check(self._runtime.cudaStreamSynchronize(0))
        return buffer

    def _copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy to the device."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        check(self._runtime.cudaMemcpyAsync(target, source, size, kind, self._stream))


def sample_rank(k: int, item_count: int) -> int:
    """Which of a sample's scores, counted from the best, more than k of all items can be expected to reach.

    Of the best k, the sample holds a binomial number: four deviations above its mean, and some for where that is small.
    """
    if item_count <= _SAMPLE:
        return k
    mean = k * _SAMPLE / item_count
    return math.ceil(mean + 4 * math.sqrt(mean) + 4)


def adjusted_ranks(ranks: np.ndarray[Any, Any], counts: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    """After a guess that failed: more of the sample where too few were kept, less where too many were."""
    lower = np.maximum(1, ranks.astype(np.float64) * (k + _CAPACITY) / 2 / np.maximum(counts, 1)).astype(np.int64)
    higher = np.minimum(ranks.astype(np.int64) * 4, _SAMPLE)
    adjusted: np.ndarray[Any, Any] = np.where(counts > _CAPACITY, lower, higher)
    return adjusted
