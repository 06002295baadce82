"""Which cells of an inverted file a search visits: nearest first, until the others hardly hold anything better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import faiss
import numpy as np

from engine.kernels.cells import expected_above, inner_products
from engine.kernels.topk import top_k
from engine.types import Float32Array, Int64Array, UInt8Array

# A search ends when the cells that it has not visited probably hold no more than this share of the best so many, and
# of all that are wanted. What calibration reaches among random items, 97% of 1,000, lies within the second.
_BEST: Final = 50
_BEST_MISSED: Final = 0.01
_WANTED_MISSED: Final = 0.2
# Items of each cell from which the spread of its scores is estimated, and how many items of an average cell count
# beside them.
_SAMPLED_PER_CELL: Final = 8
_PRIOR_ITEMS: Final = 2


class CellScan(Protocol):
    """Scores what is in some cells. Safe for concurrent scans."""

    def scan(
        self, query: Float32Array, cells: Int64Array, products: Float32Array, wanted: int, eligible: UInt8Array
    ) -> tuple[Int64Array, Float32Array]:
        """At least the best `wanted` eligible items of these cells: rows int64 (m,), scores float32 (m,), any order.

        Args:
            query: float32 (dim,). cells: int64 (n,).
            products: float32 (cells of the index,), the query's inner product with each centroid.
            eligible: bitmap over rows.
        """
        ...


@dataclass(frozen=True, slots=True)
class Partition:
    """The cells of an index, and how far their items' scores lie from those of their centroids.

    centroids: float32 (cells, dim). sizes: int64 (cells,). covariance: float32 (dim, dim), second moment of an item
    less its centroid. spreads: float32 (cells,), the length of that in each cell, relative to all.
    """

    centroids: Float32Array
    sizes: Int64Array
    covariance: Float32Array
    spreads: Float32Array

    @staticmethod
    def of(index: Any) -> "Partition":
        """The partition of a FAISS IVF index with scalar-quantized residuals, estimated from 8 items of each cell.

        Cost: about 5 µs a cell.
        """
        lists, count = index.invlists, int(index.nlist)
        sizes = np.array([lists.list_size(cell) for cell in range(count)], np.int64)
        sampled = np.minimum(sizes, _SAMPLED_PER_CELL)
        codes = np.empty((int(sampled.sum()), lists.code_size), np.uint8)
        end = np.cumsum(sampled)
        for cell in np.flatnonzero(sampled):
            few = faiss.rev_swig_ptr(lists.get_codes(int(cell)), int(sampled[cell]) * lists.code_size)
            codes[end[cell] - sampled[cell] : end[cell]] = few.reshape(-1, lists.code_size)
        residuals = index.sq.decode(codes) if len(codes) else np.empty((0, int(index.d)), np.float32)
        squares = np.einsum("nd,nd->n", residuals, residuals, dtype=np.float64)
        mean = float(squares.mean()) if len(squares) else 0.0
        of_cell = np.bincount(np.repeat(np.arange(count), sampled), squares, count)
        variances = (of_cell + _PRIOR_ITEMS * mean) / (sampled + _PRIOR_ITEMS)
        return Partition(
            centroids=np.ascontiguousarray(index.quantizer.reconstruct_n(0, count)),
            sizes=sizes,
            covariance=(residuals.T @ residuals / max(len(residuals), 1)).astype(np.float32),
            spreads=np.sqrt(variances / mean if mean else variances).astype(np.float32),
        )

    def deviations(self, query: Float32Array) -> Float32Array:
        """Standard deviation of the scores of each cell's items around its centroid's: float32 (cells,)."""
        variance = max(float(query @ self.covariance @ query), 0.0)
        return self.spreads * np.float32(math.sqrt(variance))


class NprobeSchedule:
    """How many cells a search visits at least, by the share of items that it chooses from: as many as calibration
    found to be enough where the eligible items are a random sample."""

    def __init__(self, nprobe: int, filtered_nprobe: Sequence[tuple[float, int]], cell_count: int) -> None:
        """nprobe: cells where everything is eligible; filtered_nprobe: (share, cells) for smaller shares."""
        calibrated = sorted([(1.0, nprobe), *filtered_nprobe])
        self._log_shares = np.log([share for share, _ in calibrated])
        self._log_nprobes = np.log([cells for _, cells in calibrated])
        self._cell_count = cell_count

    def at(self, share: float) -> int:
        """InvertedLists to visit when this share, above 0, is eligible: between calibrated shares by interpolation of
        logarithms, below the smallest so that as many eligible items are seen as there."""
        log_share = math.log(share)
        log_nprobe = float(np.interp(log_share, self._log_shares, self._log_nprobes))
        log_nprobe += max(float(self._log_shares[0]) - log_share, 0.0)
        return min(math.ceil(math.exp(log_nprobe) - 1e-6), self._cell_count)


def search_cells(
    partition: Partition,
    scanner: CellScan,
    query: Float32Array,
    wanted: int,
    nprobe: int,
    eligible: UInt8Array,
    eligible_count: int,
) -> tuple[Int64Array, Float32Array]:
    """The best `wanted` eligible items, best first.

    The nearest `nprobe` cells are visited first. A filter that has to do with the query may leave little in them; so
    the search goes on, always to the cells that promise most, until the rest probably holds less than 1% of the best
    50 and 10% of all that are wanted, however the eligible items are distributed.

    Args:
        query: float32 (dim,), C-contiguous. wanted: 1 to eligible_count. nprobe: at least 1.
        eligible: bitmap over rows. eligible_count: bits that are set in it.

    Returns:
        rows int64 (wanted,), unique, and scores float32 (wanted,).

    Cost: that of the visited cells; the decision takes O(cells) a round, and most searches have one round.
    """
    products = inner_products(partition.centroids, query)
    visited = np.zeros(len(products), np.bool_)
    rows, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    cells, seen, item_count = top_k(products, nprobe), 0, int(partition.sizes.sum())
    deviations = partition.deviations(query)
    while True:
        found_rows, found_scores = scanner.scan(query, cells, products, wanted, eligible)
        visited[cells] = True
        scanned = int(partition.sizes[cells].sum())
        seen += scanned
        # The first round is nearly always the only one: nothing is copied then.
        rows = np.concatenate([rows, found_rows]) if len(rows) else found_rows
        scores = np.concatenate([scores, found_scores]) if len(scores) else found_scores
        best = top_k(scores, wanted)
        if len(best) < wanted:
            rest = np.where(visited, np.float32(-np.inf), products)
            cells = top_k(rest, min(int(visited.sum()), len(visited) - int(visited.sum())))
            continue
        left = item_count - seen
        if not left:
            break
        # Where the last cells held more than the average of those that are left, their neighbours may, too.
        density = max((eligible_count - len(rows)) / left, len(found_rows) / max(scanned, 1))
        cells = _promising(partition, deviations, products, visited, scores[best], max(0.0, min(density, 1.0)))
        if not len(cells):
            break
    return rows[best], scores[best]


def _promising(
    partition: Partition,
    deviations: Float32Array,
    products: Float32Array,
    visited: np.ndarray[Any, np.dtype[np.bool_]],
    best_scores: Float32Array,
    density: float,
) -> Int64Array:
    """The cells to visit next: the fewest, so that the rest probably holds little enough; none where it does now."""
    for depth, missed in ((min(_BEST, len(best_scores)), _BEST_MISSED), (len(best_scores), _WANTED_MISSED)):
        threshold = float(best_scores[depth - 1])
        expected = expected_above(products, deviations, partition.sizes, visited, threshold, density)
        excess = float(expected.sum()) - missed * depth
        if excess > 0:
            order = np.argsort(-expected, kind="stable")
            count = int(np.searchsorted(np.cumsum(expected[order]), excess)) + 1
            return order[:count][expected[order[:count]] > 0]
    return np.empty(0, np.int64)
