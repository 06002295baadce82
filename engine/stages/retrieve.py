"""Stage: the items nearest to the query vector, among those that may be shown."""

from typing import Protocol

import numpy as np

from engine.errors import EngineError
from engine.types import Candidates, Float32Array, Int64Array, ItemSource, UInt8Array


class ItemIndex(Protocol):
    """A searchable set of item vectors, positions being item rows. Safe for concurrent searches."""

    @property
    def dim(self) -> int: ...

    @property
    def item_count(self) -> int: ...

    def search(self, query: Float32Array, k: int, eligible: UInt8Array) -> tuple[Int64Array, Float32Array]:
        """The k eligible items with the largest inner product, best first.

        Args:
            query: float32 (dim,).
            k: how many; above the number of eligible items, all that the index finds come back.
            eligible: uint8 (ceil(item_count / 8),), bit `row & 7` of byte `row >> 3` set where a row may be returned.

        Returns:
            rows int64 (m,) and scores float32 (m,) with m <= k: eligible rows only, no duplicates, no padding.
        """
        ...


def check_search(dim: int, item_count: int, query: Float32Array, k: int, eligible: UInt8Array) -> None:
    """What every index refuses.

    Raises:
        ValueError: a query or bitmap of another shape or dtype, a negative k.
        EngineError: a query with a NaN or infinite component.
    """
    if query.shape != (dim,) or query.dtype != np.float32:
        raise ValueError(f"the index takes float32 queries of {dim}, not {query.dtype} of {query.shape}")
    expected = (item_count + 7) // 8
    if eligible.shape != (expected,) or eligible.dtype != np.uint8 or not eligible.flags.c_contiguous:
        raise ValueError(
            f"the index of {item_count} items takes a contiguous uint8 bitmap of {expected} bytes, "
            f"not {eligible.dtype} of {eligible.shape}"
        )
    if k < 0:
        raise ValueError(f"k must not be negative, not {k}")
    if not np.isfinite(query).all():
        raise EngineError("the query vector has a NaN or infinite component")


def retrieve(
    index: ItemIndex,
    query: Float32Array,
    candidate_count: int,
    eligible: UInt8Array,
    source: ItemSource = ItemSource.RETRIEVAL,
) -> Candidates:
    """The `candidate_count` eligible items nearest to the query; fewer only where the index finds fewer."""
    rows, scores = index.search(query, candidate_count, eligible)
    return Candidates.of(rows, scores, source)
