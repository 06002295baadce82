"""How much each item was being shown when something was chosen: what a click owes to the shop window, not to taste."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.data.dataset import Interactions
from engine.features.popularity import PopularityTimeline
from engine.features.schema import ITEM_DYNAMIC
from engine.types import EventType, Float32Array, Int64Array

# Impressions count for a week on average: long enough to be many, short enough to follow what is shown.
_WINDOW: Final = ITEM_DYNAMIC.index("log_count_7d")
# Impressions that stand for all surfaces beside those of one, and for no knowledge beside those of all. Few: what is
# hardly ever shown must not look as if it were.
_PRIOR: Final = 0.1
# What was shown so shortly before is the slate itself, which holds the chosen item for certain.
_LAG_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Exposures:
    """Decayed impressions of items, by surface and over all of them, as of any moment.

    pairs: int64 (p,), ascending, surface * items + item of each pair with impressions; of_pairs has one row for each
        and one more, which is empty, for all the others. of_items: one row an item. of_all: one row.
    """

    item_count: int
    pairs: Int64Array
    of_pairs: PopularityTimeline
    of_items: PopularityTimeline
    of_all: PopularityTimeline

    @staticmethod
    def of(events: Interactions, item_count: int) -> "Exposures":
        """Index the impressions among the events. Cost: a few sorts of them."""
        shown = events.select(events.event_types == EventType.IMPRESSION)
        pairs, rows = np.unique(shown.surfaces.astype(np.int64) * item_count + shown.rows, return_inverse=True)
        times_ms = shown.timestamps_ms
        # Each impression is an occasion of its own to choose: those of one user count one by one.
        each = np.arange(len(shown))
        return Exposures(
            item_count=item_count,
            pairs=pairs,
            of_pairs=PopularityTimeline.build(each, rows.ravel(), times_ms, len(pairs) + 1),
            of_items=PopularityTimeline.build(each, shown.rows, times_ms, item_count),
            of_all=PopularityTimeline.build(each, np.zeros(len(shown), np.int64), times_ms, 1),
        )

    def at(self, rows: Int64Array, surfaces: Int64Array, moments_ms: Int64Array) -> Float32Array:
        """How much items were being shown on surfaces when something was chosen there.

        The impressions of the surface are smoothed towards those of all surfaces together, which in turn are smoothed
        towards the same for every item. Where something is found without a surface, all surfaces are what is known of
        what users were shown. Without impressions every item has the same exposure.

        Args:
            rows: int64 (n, k). surfaces: int64 (n,), codes. moments_ms: int64 (n,).

        Returns:
            float32 (n, k), positive; only ratios within a line mean anything.
        """
        surfaces, moments_ms = surfaces[:, None], moments_ms[:, None] - _LAG_MS
        wanted = surfaces * self.item_count + rows
        places = np.minimum(np.searchsorted(self.pairs, wanted), max(len(self.pairs) - 1, 0))
        known = self.pairs[places] == wanted if len(self.pairs) else np.zeros(rows.shape, np.bool_)
        here = _count(self.of_pairs, np.where(known, places, len(self.pairs)), moments_ms)
        anywhere = _count(self.of_items, rows, moments_ms)
        mean = _count(self.of_all, np.zeros_like(moments_ms), moments_ms) / self.item_count
        return (here + _PRIOR * (anywhere + _PRIOR) / (mean + _PRIOR)).astype(np.float32)


def _count(timeline: PopularityTimeline, rows: Int64Array, moments_ms: Int64Array) -> Float32Array:
    counts: Float32Array = np.expm1(timeline.at(rows, moments_ms)[..., _WINDOW])
    return counts
