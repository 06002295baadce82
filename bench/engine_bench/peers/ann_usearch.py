"""usearch: a single-header HNSW with SIMD distances for many types."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from usearch.index import Index, MetricKind

from engine.types import Float32Array, Int64Array
from engine_bench.peers.ann import BuildProgress, Parameters, rising

_CHUNK = 10_000


class Usearch:
    """float16 vectors, half the memory traffic of float32 at the same recall."""

    name = "usearch"
    title = "usearch, HNSW over float16"

    def __init__(self) -> None:
        self.build_parameters: Parameters = {"connectivity": 32, "expansion_add": 200, "dtype": "f16"}
        self._index: Index | None = None

    def build(self, vectors: Float32Array, path: Path, progress: BuildProgress) -> None:
        index = self._empty(vectors.shape[1])
        for start in range(0, len(vectors), _CHUNK):
            stop = min(start + _CHUNK, len(vectors))
            index.add(np.arange(start, stop), vectors[start:stop], threads=os.cpu_count() or 1)
            progress(stop, len(vectors))
        index.save(str(path))

    def open(self, path: Path, dim: int) -> None:
        self._index = self._empty(dim)
        self._index.load(str(path))

    def _empty(self, dim: int) -> Index:
        # Nobody looks vectors up by key here.
        return Index(ndim=dim, metric=MetricKind.IP, enable_key_lookups=False, **self.build_parameters)

    def ladders(self, item_count: int, k: int) -> Sequence[Sequence[Parameters]]:
        return [[{"expansion_search": expansion} for expansion in rising(k, item_count)]]

    def use(self, parameters: Parameters) -> None:
        assert self._index is not None
        self._index.expansion_search = parameters["expansion_search"]

    def search(self, query: Float32Array, k: int) -> Int64Array:
        assert self._index is not None
        rows: Int64Array = self._index.search(query, k, threads=1).keys.astype(np.int64)
        return rows
