"""Choosing how many cells a search visits, by measured recall against an exact search."""

import math
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from engine.kernels.membership import pack_mask
from engine.logs import Progress
from engine.types import Float32Array, Float64Array, Int64Array, UInt8Array


@dataclass(frozen=True)
class Truth:
    """Queries and what an exact search among the eligible finds: a hit must reach the k-th best score of its query."""

    queries: Float32Array
    k: int
    kth_scores: Float32Array
    eligible: UInt8Array | None = None  # a bitmap; None where everything is

    @staticmethod
    def of(vectors: Float32Array, queries: Float32Array, k: int) -> "Truth":
        scores, _ = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
        return Truth(queries, k, scores[:, -1].copy())

    @staticmethod
    def of_share(
        vectors: Float32Array, queries: Float32Array, k: int, share: float, rng: np.random.Generator
    ) -> "Truth":
        mask = rng.random(len(vectors)) < share
        mask[0] = True  # so that there is something to find
        among = Truth.of(vectors[mask], queries, min(k, int(mask.sum())))
        return Truth(queries, among.k, among.kth_scores, pack_mask(mask))


def climb(
    index: Any, first: int, vectors: Float32Array, truth: Truth, target: float, message: str, report: Progress
) -> tuple[int, float, bool]:
    """Visit 1, 2, 3, 4, 6, 8, 12, … cells, from `first` on, until the target is reached or all are visited."""
    cell_count: int = index.nlist
    steps = {min(step, cell_count) for power in range(32) for step in (1 << power, 3 << power)}
    climb = sorted(step for step in steps if step >= first)
    nprobe, recall, reached = first, 0.0, False
    for done, step in enumerate(climb, start=1):
        nprobe = step
        recall, reached = measure_recall(index, nprobe, vectors, truth, target)
        if reached:
            break
        report(done, len(climb), message)
    report(len(climb), len(climb), message)
    return nprobe, recall, reached


def measure_recall(
    index: Any, nprobe: int | None, vectors: Float32Array, truth: Truth, target: float
) -> tuple[float, bool]:
    """Mean recall, and whether it reaches the target at the lower end of its 95% confidence interval."""
    parameters: Any = faiss.SearchParameters() if nprobe is None else faiss.SearchParametersIVF()
    if nprobe is not None:
        parameters.nprobe = nprobe
    if truth.eligible is not None:
        selector = faiss.IDSelectorBitmap(len(truth.eligible), faiss.swig_ptr(truth.eligible))
        parameters.sel = selector
    _, found = index.search(truth.queries, truth.k, params=parameters)
    recalls = recalls_of(found, vectors, truth)
    mean = float(recalls.mean())
    error = float(recalls.std(ddof=1) / math.sqrt(len(recalls))) if len(recalls) > 1 else 0.0
    return min(mean, 1.0), mean - 1.96 * error >= target


def recalls_of(found: Int64Array, vectors: Float32Array, truth: Truth) -> Float64Array:
    """The share of its exact top k that was found for each query: float64 (queries,).

    Hits are judged by exact score and not by row: of items with equal vectors, any is as good.

    Args:
        found: int64 (queries, at most k), rows of the vectors, no row twice for a query; -1 is none.
    """
    recalls = np.empty(len(found))
    for i, (query, rows, kth) in enumerate(zip(truth.queries, found, truth.kth_scores, strict=True)):
        present = vectors[rows[rows >= 0]]
        # FAISS and numpy sum in another order: a few units in the last place of the terms, not of the sum.
        slack = 1e-6 * np.linalg.norm(query) * np.linalg.norm(present, axis=1).max(initial=0.0)
        recalls[i] = np.count_nonzero(present @ query >= kth - slack) / truth.k
    return recalls
