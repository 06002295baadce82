"""Vectors for items that training never saw, from their content alone."""

from typing import Final, Protocol

import numpy as np
import polars as pl
import pyarrow as pa

from engine.kernels.groups import group_means
from engine.types import Float32Array

_SAMPLED_ITEMS: Final = 100_000


class ItemEmbedder(Protocol):
    """Retrieval vectors from canonical item columns."""

    def __call__(self, items: pl.DataFrame) -> Float32Array:
        """float32 (n, dim), in the space of the bundle that this belongs to."""
        ...


class CategoryMeans:
    """For bundles without an item tower: the mean vector of an item's category, of everything where that is unknown.

    A matrix factorization learns items from their users, and a new item has none. Its category is the best guess until
    interactions arrive. The means of a large catalogue are those of an even sample, computed when the bundle is opened,
    so that the first new item does not wait for them.
    """

    def __init__(self, items: pa.Table, vectors: Float32Array) -> None:
        rows = np.arange(0, len(vectors), max(1, len(vectors) // _SAMPLED_ITEMS))
        categories = items.column("category").take(pa.array(rows)).combine_chunks().dictionary_encode()
        names = categories.dictionary.to_pylist()
        codes = categories.indices.fill_null(len(names)).to_numpy(zero_copy_only=False).astype(np.int64)
        means, counts = group_means(vectors, rows, codes, len(names) + 1)
        self._overall: Float32Array = (counts @ means / max(1, len(rows))).astype(np.float32)
        self._means: dict[str, Float32Array] = dict(zip(names, means.astype(np.float32)[:-1], strict=True))

    def __call__(self, items: pl.DataFrame) -> Float32Array:
        categories = items["category"].to_list()
        return np.stack([self._means.get(category or "", self._overall) for category in categories])
