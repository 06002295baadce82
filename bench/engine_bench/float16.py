"""Exact search over float16 vectors on the processor: what a GPU's exact index is held against."""

import threading
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

from engine.retrieval.overfetch import Found
from engine.types import Float32Array, UInt8Array


class Float16Searcher:
    """A Searcher that scans all items, on its calling thread alone. Safe for concurrent searches."""

    filters = True
    filter_below = 0.0

    def __init__(self, item_vectors: Float32Array, max_k: int = 16_384) -> None:
        """item_vectors: float32 (n, dim); a copy of them is kept. max_k: where a device has a limit, the same."""
        self._index = faiss.IndexScalarQuantizer(
            item_vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._index.add(np.ascontiguousarray(item_vectors))
        self._max_k = max_k
        self._threads = threading.local()

    @property
    def dim(self) -> int:
        return int(self._index.d)

    @property
    def item_count(self) -> int:
        return int(self._index.ntotal)

    @property
    def max_k(self) -> int:
        return self._max_k

    def search(self, queries: Float32Array, k: int) -> Found:
        """See Searcher. Cost: O(m * n * dim)."""
        self._use_one_thread()
        scores, rows = self._index.search(queries, k)
        return rows, scores

    def search_eligible(self, queries: Float32Array, k: int, eligible: Sequence[UInt8Array]) -> Found:
        """See Searcher."""
        self._use_one_thread()
        found = [self._search_one(query, k, bitmap) for query, bitmap in zip(queries, eligible, strict=True)]
        return np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found])

    def _search_one(self, query: Float32Array, k: int, eligible: UInt8Array) -> Found:
        selector = faiss.IDSelectorBitmap(len(eligible), faiss.swig_ptr(eligible))
        parameters: Any = faiss.SearchParameters()
        parameters.sel = selector
        scores, rows = self._index.search(query[None], k, params=parameters)
        return rows, scores

    def _use_one_thread(self) -> None:
        """FAISS's setting is per calling thread."""
        if not getattr(self._threads, "is_set", False):
            faiss.omp_set_num_threads(1)
            self._threads.is_set = True
