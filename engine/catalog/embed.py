"""Vectors for items that training never saw, from their content alone."""

import threading
from typing import Protocol

import numpy as np
import polars as pl
import pyarrow as pa

from engine.types import Float32Array


class ItemEmbedder(Protocol):
    """Retrieval vectors from canonical item columns."""

    def __call__(self, items: pl.DataFrame) -> Float32Array:
        """float32 (n, dim), in the space of the bundle that this belongs to."""
        ...


class CategoryMeans:
    """For bundles without an item tower: the mean vector of an item's category, of everything where that is unknown.

    A matrix factorization knows items by who used them, and of a new item that is nobody: its category is the best
    guess until interactions say more. The means are computed when the first item asks, in one pass over the table.
    """

    def __init__(self, items: pa.Table, vectors: Float32Array) -> None:
        self._items = items
        self._vectors = vectors
        self._lock = threading.Lock()
        self._means: dict[str, Float32Array] | None = None

    def __call__(self, items: pl.DataFrame) -> Float32Array:
        with self._lock:
            if self._means is None:
                self._means = self._compute()
        overall = self._means[""]
        categories = items["category"].to_list()
        return np.stack([self._means.get(category or "", overall) for category in categories]).astype(np.float32)

    def _compute(self) -> dict[str, Float32Array]:
        categories = self._items.column("category").combine_chunks().dictionary_encode()
        codes = categories.indices.fill_null(len(categories.dictionary)).to_numpy(zero_copy_only=False)
        groups = len(categories.dictionary) + 1
        counts = np.bincount(codes, minlength=groups)
        sums = np.stack(
            [np.bincount(codes, self._vectors[:, column], groups) for column in range(self._vectors.shape[1])], axis=1
        )
        means = {"": (sums.sum(axis=0) / max(len(codes), 1)).astype(np.float32)}
        for code, name in enumerate(categories.dictionary.to_pylist()):
            if counts[code]:
                means[name] = (sums[code] / counts[code]).astype(np.float32)
        return means
