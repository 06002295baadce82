"""hnswlib: hierarchical navigable small worlds (Malkov & Yashunin, TPAMI 2020)."""

import os
from collections.abc import Sequence
from pathlib import Path

import hnswlib
import numpy as np

from engine.types import Float32Array, Int64Array
from engine_bench.peers.ann import BuildProgress, Parameters, rising

_CHUNK = 10_000


class Hnswlib:
    """float32 vectors in a graph of the size that its documentation suggests for high recall."""

    name = "hnswlib"
    title = "hnswlib, HNSW"

    def __init__(self) -> None:
        self.build_parameters: Parameters = {"M": 32, "ef_construction": 200}
        self._index: hnswlib.Index | None = None

    def build(self, vectors: Float32Array, path: Path, progress: BuildProgress) -> None:
        index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        index.init_index(max_elements=len(vectors), random_seed=0, **self.build_parameters)
        for start in range(0, len(vectors), _CHUNK):
            stop = min(start + _CHUNK, len(vectors))
            index.add_items(vectors[start:stop], np.arange(start, stop), num_threads=os.cpu_count() or 1)
            progress(stop, len(vectors))
        index.save_index(str(path))

    def open(self, path: Path, dim: int) -> None:
        self._index = hnswlib.Index(space="ip", dim=dim)
        self._index.load_index(str(path))
        self._index.set_num_threads(1)

    def ladders(self, item_count: int, k: int) -> Sequence[Sequence[Parameters]]:
        return [[{"ef": ef} for ef in rising(k, item_count)]]

    def use(self, parameters: Parameters) -> None:
        assert self._index is not None
        self._index.set_ef(parameters["ef"])

    def search(self, query: Float32Array, k: int) -> Int64Array:
        assert self._index is not None
        labels, _ = self._index.knn_query(query, k)
        rows: Int64Array = labels[0].astype(np.int64)
        return rows
