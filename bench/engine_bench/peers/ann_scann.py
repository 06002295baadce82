"""ScaNN: partitions, anisotropic quantization and rescoring (Guo et al., ICML 2020)."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scann.scann_ops.py import scann_ops_pybind

from engine.types import Float32Array, Int64Array
from engine_bench.peers.ann import BuildProgress, Parameters, rising

_TRAINING_SAMPLE = 250_000
# How many times k are rescored exactly: more makes up for coarser codes, fewer leaves take more of it.
_REORDER_FACTORS = (1.25, 1.5, 2.0, 3.0, 4.0)


class Scann:
    """Twice the square root of the items as leaves, two dimensions a block, threshold 0.2: its documented settings."""

    name = "scann"
    title = "ScaNN, tree and anisotropic hashing"

    def __init__(self) -> None:
        self.build_parameters: Parameters = {"dimensions_per_block": 2, "anisotropic_threshold": 0.2}
        self._searcher: Any = None
        self._leaves = self._reorder = 0

    def build(self, vectors: Float32Array, path: Path, progress: BuildProgress) -> None:
        leaves = _leaf_count(len(vectors))
        builder = scann_ops_pybind.builder(vectors, 10, "dot_product")
        builder = builder.tree(leaves, max(1, leaves // 10), training_sample_size=_TRAINING_SAMPLE)
        builder = builder.score_ah(
            self.build_parameters["dimensions_per_block"],
            anisotropic_quantization_threshold=self.build_parameters["anisotropic_threshold"],
        )
        progress(0, 1)
        searcher = builder.reorder(100).set_n_training_threads(os.cpu_count() or 1).build()
        path.mkdir()
        # Relative paths: the directory gets its name only once it is complete.
        searcher.serialize(str(path), relative_path=True)
        progress(1, 1)

    def open(self, path: Path, dim: int) -> None:
        self._searcher = scann_ops_pybind.load_searcher(str(path))

    def ladders(self, item_count: int, k: int) -> Sequence[Sequence[Parameters]]:
        leaves = rising(max(1, _leaf_count(item_count) * k // item_count), _leaf_count(item_count))
        reorders = sorted({min(math.ceil(k * factor), item_count) for factor in _REORDER_FACTORS} | {item_count})
        return [[{"leaves": count, "reorder": reorder} for count in leaves] for reorder in reorders]

    def use(self, parameters: Parameters) -> None:
        self._leaves, self._reorder = parameters["leaves"], parameters["reorder"]

    def search(self, query: Float32Array, k: int) -> Int64Array:
        rows, _ = self._searcher.search(
            query, final_num_neighbors=k, pre_reorder_num_neighbors=self._reorder, leaves_to_search=self._leaves
        )
        found: Int64Array = np.asarray(rows, np.int64)
        return found


def _leaf_count(item_count: int) -> int:
    return max(1, round(2 * math.sqrt(item_count)))
