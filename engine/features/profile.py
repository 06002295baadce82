"""Dense features of a user, from their events so far: what training reads and the hourly job publishes.

Numpy only, and a function of a history prefix: the same events give the same profile in both places. Everything that
depends on the request's own time is left to the ranker, which gets the absolute day of the last event instead.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.features.context import MS_PER_DAY
from engine.features.history import Histories, HistoryStates
from engine.features.schema import FeatureSchema
from engine.types import EventType, Float32Array, Float64Array, Int64Array

_SHARED_TYPES = (EventType.VIEW, EventType.CART, EventType.PURCHASE)  # clicks are the rest
_RECENT = 10
PROFILE: Final = (
    "log_event_count", "share_view", "share_cart", "share_purchase", "mean_log_price", "std_log_price",
    "mean_popularity", "recent_popularity", "mean_published_days", "std_published_days", "recent_published_days",
    "last_event_days",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ItemStats:
    """What a profile knows of each item; all finite.

    log_price, published_days, popularity: float32 (items,); popularity is ITEM_DYNAMIC's log_count_all.
    epoch_ms: where days count from.
    """

    log_price: Float32Array
    published_days: Float32Array
    popularity: Float32Array
    epoch_ms: int

    @staticmethod
    def from_tables(schema: FeatureSchema, item_table: Float32Array, item_dynamic: Float32Array) -> "ItemStats":
        """Read from a bundle's tables: float32 (items, schema.table_width) and (items, len(ITEM_DYNAMIC))."""
        return ItemStats(
            log_price=item_table[:, schema.item_columns["log_price"][0]],
            published_days=item_table[:, schema.item_columns["published_days"][0]],
            popularity=item_dynamic[:, -1],
            epoch_ms=schema.epoch_ms,
        )


def profile_features(histories: Histories, states: HistoryStates, item_stats: ItemStats) -> Float32Array:
    """The profile of each state.

    Args:
        histories: events whose rows index the item statistics.
        states: n moments in them; a state without events gets zeros.

    Returns:
        float32 (n, len(PROFILE)), in PROFILE's order.

    Cost: one running sum over all events a feature, then a look-up a state.
    """
    out = np.zeros((len(states), len(PROFILE)), np.float32)
    start = histories.offsets[states.users]
    end = start + states.lengths
    known = states.lengths > 0
    if not known.any():
        return out
    recent = np.maximum(start, end - _RECENT)
    count = np.maximum(states.lengths, 1)
    recent_count = np.maximum(end - recent, 1)

    price = _RunningSum(item_stats.log_price[histories.rows])
    popularity = _RunningSum(item_stats.popularity[histories.rows])
    published = _RunningSum(item_stats.published_days[histories.rows])
    last_ms = histories.timestamps_ms[np.maximum(end - 1, 0)]
    features = [
        np.log1p(states.lengths),
        *(_RunningSum(histories.event_types == kind).between(start, end) / count for kind in _SHARED_TYPES),
        *price.mean_and_std(start, end, count),
        popularity.between(start, end) / count,
        popularity.between(recent, end) / recent_count,
        *published.mean_and_std(start, end, count),
        published.between(recent, end) / recent_count,
        (last_ms - item_stats.epoch_ms) / MS_PER_DAY,
    ]
    out[known] = np.stack(features, axis=1)[known]
    return out


class _RunningSum:
    """Sums of any stretch of a sequence in O(1), in float64: the sums are long and the differences small."""

    def __init__(self, values: npt.NDArray[np.generic]) -> None:
        self._values = values.astype(np.float64)
        self._sums = np.concatenate([[0.0], np.cumsum(self._values)])

    def between(self, start: Int64Array, stop: Int64Array) -> Float64Array:
        total: Float64Array = self._sums[stop] - self._sums[start]
        return total

    def mean_and_std(self, start: Int64Array, stop: Int64Array, count: Int64Array) -> tuple[Float64Array, Float64Array]:
        # Squares are taken around the overall mean, so that a small spread of large values is not lost.
        centre = self._values.mean()
        mean = self.between(start, stop) / count
        squares = np.concatenate([[0.0], np.cumsum((self._values - centre) ** 2)])
        variance = (squares[stop] - squares[start]) / count - (mean - centre) ** 2
        return mean, np.sqrt(np.maximum(variance, 0.0))
