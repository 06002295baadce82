"""The scalar columns of the ranker's item table, the same for a bundle's items and for those that come later."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from engine.features.context import MS_PER_DAY
from engine.types import Float32Array, Float64Array


@dataclass(frozen=True, slots=True)
class ImputationMeans:
    """What replaces an unknown value: the means over a catalogue, 0 where nothing is known."""

    published_days: float
    log_price: float

    @staticmethod
    def of(items: pl.DataFrame, epoch_ms: int) -> "ImputationMeans":
        """items: canonical columns; days count from epoch_ms."""
        return ImputationMeans(*(_mean(values) for values in _values(items, epoch_ms)))


def item_attributes(items: pl.DataFrame, epoch_ms: int, means: ImputationMeans) -> dict[str, Float32Array]:
    """The columns by name, each float32 (items,), finite; an unknown value is the mean, and says so in `…_missing`."""
    published_days, log_price = _values(items, epoch_ms)
    return {
        "published_days": _filled(published_days, means.published_days),
        "log_price": _filled(log_price, means.log_price),
        "published_missing": (~np.isfinite(published_days)).astype(np.float32),
        "price_missing": (~np.isfinite(log_price)).astype(np.float32),
    }


def _values(items: pl.DataFrame, epoch_ms: int) -> tuple[Float64Array, Float64Array]:
    """Publishing day and log1p of the price, NaN where unknown."""
    published_ms = items["published_ms"].cast(pl.Float64).to_numpy()
    price = items["price"].cast(pl.Float64).to_numpy()
    return (published_ms - epoch_ms) / MS_PER_DAY, np.log1p(price)


def _mean(values: Float64Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0


def _filled(values: Float64Array, mean: float) -> Float32Array:
    return np.where(np.isfinite(values), values, mean).astype(np.float32)
