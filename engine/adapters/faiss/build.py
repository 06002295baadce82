"""Building the item index, off the request path: partition, encode, then measure and choose."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import faiss
import numpy as np

from engine.adapters.faiss.calibrate import Truth, climb, measure_recall
from engine.adapters.faiss.index import IndexParameters, verify_index
from engine.errors import DataError
from engine.logs import Progress
from engine.types import Float32Array, Int64Array

__all__ = ["IndexParameters", "build_index", "verify_index"]

Partition = Literal["spherical", "euclidean"]

# Below this an exact scan takes about as long as a partitioned search, and needs no calibration.
EXACT_BELOW: Final = 50_000
# Points per cell that k-means sees: more moves recall by less than its measurement error.
_TRAIN_POINTS_PER_CELL: Final = 64
_KMEANS_ITERATIONS: Final = 10
# Mean recall over this many queries has a standard error of a few thousandths.
_MAX_QUERIES: Final = 256
_CHUNK: Final = 65_536
# Where norms vary less than this (standard deviation over mean), direction alone decides who is near.
_NORM_VARIATION: Final = 0.1
# Shares of eligible items at which nprobe is calibrated besides 1: the top k of few lie further apart.
_FILTERED_SHARES: Final = (0.5, 0.1)
Codec = Literal["SQ8", "SQfp16"]
_CODECS: Final[dict[Codec, int]] = {"SQ8": faiss.ScalarQuantizer.QT_8bit, "SQfp16": faiss.ScalarQuantizer.QT_fp16}


@dataclass(frozen=True)
class _InvertedLists:
    """A partition of the items: one centroid a cell, and each item's cell."""

    kind: Partition
    centroids: Float32Array
    cell_of_row: Int64Array


@dataclass(frozen=True)
class _Candidate:
    """One built index with the smallest nprobe that reaches the target, or the best there is."""

    index: Any
    factory: str
    partition: Literal["none", "spherical", "euclidean"]
    nprobe: int
    recall: float
    reached: bool
    scanned_share: float
    filtered_nprobe: tuple[tuple[float, int], ...] = ()


def build_index(
    item_vectors: Float32Array,
    path: Path,
    *,
    queries: Float32Array | None = None,
    target_recall: float = 0.97,
    k: int = 1000,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
    exact_below: int = EXACT_BELOW,
) -> IndexParameters:
    """Build the index of these items, write it, and say how to search it.

    Below `exact_below` items the index is an exact scan. From there on items are partitioned by k-means into about
    2 * sqrt(n) cells and scalar-quantized to 8 bits, or to float16 where 8 bits do not reach the target. nprobe is the
    smallest that reaches it with 95% confidence over the queries. Vectors of unequal length (matrix factorization)
    break the usual partition by direction, since the best items are then the long ones of every direction; both that
    and a partition by distance, where long items get cells of their own, are built and the one which scans less wins.

    Args:
        item_vectors: float32 (n, dim), finite; may be memory-mapped.
        path: the file to write.
        queries: float32 (q, dim), vectors of the kind that will be searched with, not those of training where it
            can be helped; by default sampled items with noise of half their length. At most 256 are used.
        target_recall: the share of the exact top k that a search is to find, in (0, 1].
        k: depth of that recall.
        seed: of sampling and k-means; the same input, seed and thread count give the same index.
        threads: OpenMP threads; 0 leaves OpenMP's setting, by default one a core.
        progress: called with (done, total, message) after each step.
        exact_below: the item count from which the index is partitioned.

    Returns:
        What to record beside the file; the recall in it is the measured one, whether it reaches the target or not.

    Raises:
        DataError: no items, or a component that is not finite. ValueError: shapes or target that cannot be.

    Cost: k-means and assignment, O(n^1.5 * dim); about half a minute for a million items of 64 on one core.
    Source: inverted file with scalar quantization, Jegou et al., TPAMI 2011, and the FAISS library paper, 2024.
    """
    started = time.perf_counter()
    count, dim = _check(item_vectors, queries, target_recall, k)
    report = progress or (lambda _done, _total, _message: None)
    rng = np.random.default_rng(seed)
    threads_before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads or threads_before)
    try:
        vectors = np.ascontiguousarray(item_vectors)
        chosen = _sample_queries(vectors, rng) if queries is None else _at_most(queries, _MAX_QUERIES, rng)
        truth = Truth.of(vectors, chosen, min(k, count))
        if count < exact_below:
            best = _exact(vectors, truth, target_recall)
        else:
            best = _partitioned(vectors, truth, target_recall, rng, seed, report)
        faiss.write_index(best.index, str(path))
    finally:
        faiss.omp_set_num_threads(threads_before)
    return IndexParameters(
        factory=best.factory,
        partition=best.partition,
        item_count=count,
        dim=dim,
        nprobe=best.nprobe,
        filtered_nprobe=best.filtered_nprobe,
        recall_at_k=best.recall,
        recall_k=truth.k,
        recall_query_count=len(chosen),
        scanned_share=best.scanned_share,
        build_seconds=time.perf_counter() - started,
    )


def _check(item_vectors: Float32Array, queries: Float32Array | None, target: float, k: int) -> tuple[int, int]:
    if item_vectors.ndim != 2 or item_vectors.dtype != np.float32:
        raise ValueError(f"item vectors must be float32 (n, dim), not {item_vectors.dtype} of {item_vectors.shape}")
    count, dim = item_vectors.shape
    if count == 0 or dim == 0:
        raise DataError("there are no item vectors to index")
    if queries is not None and (queries.ndim != 2 or len(queries) == 0 or queries.shape[1] != dim):
        raise ValueError(f"queries of shape {queries.shape} do not match item vectors of {dim}")
    if not 0 < target <= 1 or k < 1:
        raise ValueError(f"a target recall of {target} at {k} cannot be reached")
    for start in range(0, count, _CHUNK):
        finite = np.isfinite(item_vectors[start : start + _CHUNK]).all(axis=1)
        if not finite.all():
            raise DataError(f"the vector of item row {start + int(np.argmin(finite))} is not finite")
    return count, dim


def _at_most(rows: Float32Array, limit: int, rng: np.random.Generator) -> Float32Array:
    """The rows, or a sample of them where there are more than the limit, in their order."""
    if len(rows) > limit:
        rows = rows[np.sort(rng.choice(len(rows), limit, replace=False))]
    return np.ascontiguousarray(rows, dtype=np.float32)


def _sample_queries(vectors: Float32Array, rng: np.random.Generator) -> Float32Array:
    items = _at_most(vectors, _MAX_QUERIES, rng)
    noise = rng.standard_normal(items.shape, dtype=np.float32)
    noise *= 0.5 * np.linalg.norm(items, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return items + noise


def _exact(vectors: Float32Array, truth: Truth, target: float) -> _Candidate:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    recall, reached = measure_recall(index, None, vectors, truth, target)
    return _Candidate(index, "Flat", "none", 1, recall, reached, 1.0)


def _partitioned(
    vectors: Float32Array, truth: Truth, target: float, rng: np.random.Generator, seed: int, report: Progress
) -> _Candidate:
    cell_count = 2 ** round(math.log2(2 * math.sqrt(len(vectors))))
    sample = _at_most(vectors, _TRAIN_POINTS_PER_CELL * cell_count, rng)
    norms = np.linalg.norm(sample, axis=1)
    kinds: tuple[Partition, ...] = ("spherical",)
    if norms.std() > _NORM_VARIATION * norms.mean():
        kinds = ("spherical", "euclidean")
    candidates: list[_Candidate] = []
    for kind in kinds:
        cells = _cells(vectors, sample, kind, cell_count, seed, report)
        for codec in _CODECS:
            index = _encode(vectors, cells.centroids, cells.cell_of_row, codec, report)
            candidates.append(_calibrate(index, f"IVF{cell_count},{codec}", cells, vectors, truth, target, report))
            if candidates[-1].reached:
                break
    reached = [candidate for candidate in candidates if candidate.reached]
    if reached:
        best = min(reached, key=lambda candidate: candidate.scanned_share)
    else:
        best = max(candidates, key=lambda candidate: candidate.recall)
    filtered: list[tuple[float, int]] = []
    nprobe = best.nprobe
    for share in _FILTERED_SHARES:
        among = Truth.of_share(vectors, truth.queries, truth.k, share, rng)
        nprobe, _, _ = climb(best.index, nprobe, vectors, among, target, f"index, {share:.0%} eligible", report)
        filtered.append((share, nprobe))
    return replace(best, filtered_nprobe=tuple(filtered))


def _cells(
    vectors: Float32Array, sample: Float32Array, kind: Partition, cell_count: int, seed: int, report: Progress
) -> _InvertedLists:
    dim = vectors.shape[1]
    kmeans = faiss.Kmeans(
        dim,
        cell_count,
        niter=_KMEANS_ITERATIONS,
        spherical=kind == "spherical",
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_TRAIN_POINTS_PER_CELL,
    )
    report(0, 1, f"index, {kind} k-means")
    kmeans.train(sample)
    report(1, 1, f"index, {kind} k-means")
    centroids = np.array(kmeans.centroids, np.float32)
    # Items go to the cell whose centroid leaves the smallest residual; queries then visit cells by inner product.
    nearest = faiss.IndexFlatIP(dim) if kind == "spherical" else faiss.IndexFlatL2(dim)
    nearest.add(centroids)
    cell_of_row = np.empty(len(vectors), np.int64)
    for rows in _chunks(len(vectors), f"index, {kind} cells", report):
        cell_of_row[rows] = nearest.search(vectors[rows], 1)[1][:, 0]
    return _InvertedLists(kind, centroids, cell_of_row)


def _encode(
    vectors: Float32Array, centroids: Float32Array, cell_of_row: Int64Array, codec: Codec, report: Progress
) -> Any:
    cell_count, dim = centroids.shape
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(centroids)
    index = faiss.IndexIVFScalarQuantizer(quantizer, dim, cell_count, _CODECS[codec], faiss.METRIC_INNER_PRODUCT)
    # FAISS's own train() and add() would assign items by inner product: with cells of unequal length, to the longest.
    # The 8-bit range of a column is that of its training rows: from the extremes of all, no item is clipped.
    low, high = np.full(dim, np.inf, np.float32), np.full(dim, -np.inf, np.float32)
    for rows in _chunks(len(vectors)):
        residuals = vectors[rows] - centroids[cell_of_row[rows]]
        np.minimum(low, residuals.min(axis=0), out=low)
        np.maximum(high, residuals.max(axis=0), out=high)
    extremes, unused = np.stack([low, high]), np.zeros(2, np.int64)
    index.train_encoder(2, faiss.swig_ptr(extremes), faiss.swig_ptr(unused))
    index.is_trained = True
    for rows in _chunks(len(vectors), f"index, {codec} codes", report):
        chunk = np.ascontiguousarray(vectors[rows])
        ids = np.arange(rows.start, rows.start + len(chunk))
        assigned = np.ascontiguousarray(cell_of_row[rows])
        index.add_core(len(chunk), faiss.swig_ptr(chunk), faiss.swig_ptr(ids), faiss.swig_ptr(assigned))
    return index


def recode(index: Any, vectors: Float32Array, codec: Codec) -> Any:
    """The same cells with other codes, the parameters of searches being as good as before.

    Args:
        index: an IVF index that build_index made of `vectors`, float32 (n, dim).

    Cost: a pass over the vectors.
    """
    centroids = index.quantizer.reconstruct_n(0, index.nlist)
    cell_of_row = np.empty(index.ntotal, np.int64)
    lists = index.invlists
    for cell in range(index.nlist):
        size = lists.list_size(cell)
        if size:
            cell_of_row[faiss.rev_swig_ptr(lists.get_ids(cell), size)] = cell
    return _encode(vectors, centroids, cell_of_row, codec, lambda *_: None)


def _calibrate(
    index: Any,
    factory: str,
    cells: _InvertedLists,
    vectors: Float32Array,
    truth: Truth,
    target: float,
    report: Progress,
) -> _Candidate:
    nprobe, recall, reached = climb(index, 1, vectors, truth, target, "index, calibration", report)
    sizes = np.bincount(cells.cell_of_row, minlength=len(cells.centroids))
    _, visited = index.quantizer.search(truth.queries, nprobe)
    scanned_share = float(sizes[visited].sum(axis=1).mean() / len(vectors))
    return _Candidate(index, factory, cells.kind, nprobe, recall, reached, scanned_share)


def _chunks(count: int, message: str = "", report: Progress | None = None) -> Iterator[slice]:
    for start in range(0, count, _CHUNK):
        yield slice(start, start + _CHUNK)
        if report is not None:
            report(min(start + _CHUNK, count), count, message)
