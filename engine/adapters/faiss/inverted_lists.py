"""The cells of a FAISS inverted file of 8-bit codes, searched where they lie by a kernel of our own."""

import ctypes
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from engine.kernels.cells import scan_cells
from engine.types import Float32Array, Int64Array, UInt8Array

_LEVELS = 255.0


@dataclass(frozen=True, slots=True)
class InvertedLists:
    """Where in memory the codes and rows of each cell of an index are.

    Implements engine.adapters.faiss.visits.CellScan.

    index: owns that memory. memory: uint8, from the first to the last byte of any cell; what lies between cells is
    never read. lowest, step: float32 (dim,); a component of an item less its centroid is `lowest + step * code`.
    """

    index: Any
    memory: UInt8Array
    codes_at: Int64Array
    rows_at: Int64Array
    sizes: Int64Array
    lowest: Float32Array
    step: Float32Array

    @staticmethod
    def of(index: Any) -> "InvertedLists | None":
        """The cells of an index whose ids are rows; None where it has none, or codes of another kind.

        The index must not change from now on. Cost: 2 µs a cell.
        """
        if not (
            isinstance(index, faiss.IndexIVFScalarQuantizer)
            and index.sq.qtype == faiss.ScalarQuantizer.QT_8bit
            and index.by_residual
            and index.metric_type == faiss.METRIC_INNER_PRODUCT
            and index.quantizer.metric_type == faiss.METRIC_INNER_PRODUCT
        ):
            return None
        lists: Any = index.invlists
        dim, count = int(index.d), int(index.nlist)
        sizes = np.array([lists.list_size(cell) for cell in range(count)], np.int64)
        filled = np.flatnonzero(sizes)
        codes_at, rows_at = np.zeros(count, np.int64), np.zeros(count, np.int64)
        codes_at[filled] = [int(lists.get_codes(int(cell))) for cell in filled]
        rows_at[filled] = [int(lists.get_ids(int(cell))) for cell in filled]
        if not len(filled) or (rows_at % np.dtype(np.int64).itemsize).any():
            return None
        first = int(min(codes_at[filled].min(), rows_at[filled].min()))
        last = int(max((codes_at + dim * sizes)[filled].max(), (rows_at + 8 * sizes)[filled].max()))
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * (last - first)).from_address(first))
        memory.flags.writeable = False
        codes_at[filled] -= first
        rows_at[filled] -= first
        lowest, span = faiss.vector_to_array(index.sq.trained).reshape(2, dim)
        return InvertedLists(
            index=index,
            memory=memory,
            codes_at=codes_at,
            rows_at=rows_at,
            sizes=sizes,
            # FAISS takes a code for the middle of its interval.
            lowest=(lowest + span * (0.5 / _LEVELS)).astype(np.float32),
            step=(span / _LEVELS).astype(np.float32),
        )

    def scan(
        self, query: Float32Array, cells: Int64Array, products: Float32Array, wanted: int, eligible: UInt8Array
    ) -> tuple[Int64Array, Float32Array]:
        """All eligible items of these cells, in no order: rows int64 (m,) and scores float32 (m,).

        Args:
            products: float32 (cells of the index,), the query's inner product with each centroid.
            wanted: not needed here; see CellScan.
        """
        offsets = products[cells] + np.float32(self.lowest @ query)
        return scan_cells(
            self.memory, self.codes_at, self.rows_at, self.sizes, cells, offsets, self.step * query, eligible
        )
