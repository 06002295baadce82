"""Vectors for items that training never saw, from their content alone."""

from typing import Final, Protocol

import numpy as np
import polars as pl
import pyarrow as pa

from engine.types import Float32Array

_SAMPLED_ITEMS: Final = 100_000


class ItemEmbedder(Protocol):
    """Retrieval vectors from canonical item columns."""

    def __call__(self, items: pl.DataFrame) -> Float32Array:
        """float32 (n, dim), in the space of the bundle that this belongs to."""
        ...


class CategoryMeans:
    """For bundles without an item tower: the mean vector of an item's category, of everything where that is unknown.

    A matrix factorization knows items by who used them, and of a new item that is nobody: its category is the best
    guess until interactions say more. Of a large catalogue an even sample speaks for all: it is taken when the bundle
    is opened, since the first new item must not wait for it.
    """

    def __init__(self, items: pa.Table, vectors: Float32Array) -> None:
        rows = np.arange(0, len(vectors), max(1, len(vectors) // _SAMPLED_ITEMS))
        categories = items.column("category").take(pa.array(rows)).combine_chunks().dictionary_encode()
        names = categories.dictionary.to_pylist()
        codes = categories.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
        sampled = np.asarray(vectors[rows], np.float64)
        # One group's rows after the other: each group's sum is one reduction.
        order = np.argsort(codes, kind="stable")
        groups, starts = np.unique(codes[order], return_index=True)
        sums = np.add.reduceat(sampled[order], starts, axis=0)
        counts = np.diff(np.append(starts, len(order)))
        self._overall: Float32Array = sampled.mean(axis=0).astype(np.float32)
        self._means: dict[str, Float32Array] = {
            names[group]: (total / count).astype(np.float32)
            for group, total, count in zip(groups.tolist(), sums, counts.tolist(), strict=True)
            if group < len(names)
        }

    def __call__(self, items: pl.DataFrame) -> Float32Array:
        categories = items["category"].to_list()
        return np.stack([self._means.get(category or "", self._overall) for category in categories])
