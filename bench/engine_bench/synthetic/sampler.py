"""Draw items of a synthetic world by shelf, popularity and novelty, for many sessions at once."""

from typing import Final

import numpy as np

from engine.types import BoolArray, Int64Array
from engine_bench.synthetic.words import CATEGORIES, SURFACES
from engine_bench.synthetic.world import SUB_COUNT, SURFACE_SETS, World

_SUBS_PER_CATEGORY: Final = SUB_COUNT // len(CATEGORIES)
# How a draw is made: popular overall, uniform, among the newest, popular in the category, popular in the sub-category.
POPULAR, UNIFORM, NEWEST, CATEGORY, SUB = range(5)
SOURCE_COUNT: Final = 5


class ItemSampler:
    """Popularity-weighted draws from contiguous shelves by inverse transform. Built once, O(n log n)."""

    def __init__(self, world: World) -> None:
        items = world.items
        self._by_sub = np.argsort(items.subs, kind="stable")
        self._bounds = np.searchsorted(items.subs[self._by_sub], np.arange(SUB_COUNT + 1))
        weights = np.exp(items.log_appeal[self._by_sub].astype(np.float64))
        self._cumulative = np.concatenate([[0.0], np.cumsum(weights)])
        self._by_age = np.argsort(items.published_ms, kind="stable")
        self._published = items.published_ms
        self._published_sorted = items.published_ms[self._by_age]
        allowed = [[not names or surface in names for surface in SURFACES] for names in SURFACE_SETS]
        self._shown_on = np.array(allowed)[items.restrictions]

    def draw(self, sources: Int64Array, subs: Int64Array, times_ms: Int64Array, rng: np.random.Generator) -> Int64Array:
        """int64 (n, k) items: each drawn as its source code (n, k) says, around the session's sub-category (n,)."""
        categories = subs // _SUBS_PER_CATEGORY * _SUBS_PER_CATEGORY
        low = np.where(sources == SUB, subs[:, None], np.where(sources == CATEGORY, categories[:, None], 0))
        width = np.array([SUB_COUNT, SUB_COUNT, SUB_COUNT, _SUBS_PER_CATEGORY, 1])[sources]
        start, stop = self._bounds[low], self._bounds[low + width]
        uniform = rng.random(sources.shape)
        weight_start, weight_stop = self._cumulative[start], self._cumulative[stop]
        places = np.searchsorted(self._cumulative, weight_start + uniform * (weight_stop - weight_start), side="right")
        popular = self._by_sub[np.clip(places - 1, 0, len(self._by_sub) - 1)]
        count = len(self._by_age)
        newest_place = np.searchsorted(self._published_sorted, times_ms)[:, None] - rng.geometric(0.02, sources.shape)
        newest = self._by_age[np.maximum(newest_place, 0)]
        drawn = np.where(sources == NEWEST, newest, popular)
        return np.where(sources == UNIFORM, (uniform * count).astype(np.int64), drawn)

    def published(self, items: Int64Array, times_ms: Int64Array) -> BoolArray:
        """bool (n, k): whether the items (n, k) exist at the times (n,)."""
        return self._published[items] <= times_ms[:, None]

    def shown_on(self, items: Int64Array, surfaces: Int64Array) -> BoolArray:
        """bool (n, k): whether the items (n, k) may be shown on the surfaces (n,), positions in SURFACES."""
        return self._shown_on[items, surfaces[:, None]]
