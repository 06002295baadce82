"""Ranking metrics with their standard errors; each takes ranked rows, best first, one line a user."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.types import Float32Array, Float64Array, Int64Array


@dataclass(frozen=True, slots=True)
class MeanEstimate:
    """A mean over users and its standard error."""

    mean: float
    standard_error: float

    @staticmethod
    def of(values: Float64Array) -> "MeanEstimate":
        if len(values) < 2:
            return MeanEstimate(float(values.mean()) if len(values) else 0.0, 0.0)
        return MeanEstimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def hit_positions(ranked: Int64Array, targets: Int64Array) -> Int64Array:
    """The position of each user's target: int64 (users,), 0 for the first place, -1 where it is missing.

    ranked: int64 (users, k), padded with -1. targets: int64 (users,).
    """
    hits = ranked == targets[:, None]
    return np.where(hits.any(axis=1), hits.argmax(axis=1), -1)


def hits(positions: Int64Array, k: int) -> Float64Array:
    """float64 (users,): 1 where the target is among the first k. Its mean is HR@k (recall@k with one target)."""
    return ((positions >= 0) & (positions < k)).astype(np.float64)


def gains(positions: Int64Array, k: int) -> Float64Array:
    """float64 (users,): 1 / log2(position + 2) where the target is among the first k, else 0.

    Its mean is NDCG@k with one relevant item a user.
    """
    return hits(positions, k) / np.log2(np.maximum(positions, 0) + 2.0)


def seed_means(
    positions: Sequence[Int64Array], mean: Callable[[Float64Array], float] = lambda values: float(values.mean())
) -> dict[str, list[float]]:
    """By metric, its mean over users of each seed's positions, one int64 (n,) a seed. mean: of float64 (n,)."""
    return {
        "hr_at_10": [mean(hits(found, 10)) for found in positions],
        "ndcg_at_10": [mean(gains(found, 10)) for found in positions],
        "hr_at_50": [mean(hits(found, 50)) for found in positions],
    }


def coverage(ranked: Int64Array, item_count: int) -> float:
    """Share of the catalogue that is in at least one list."""
    return len(np.unique(ranked[ranked >= 0])) / item_count


def intra_list_similarity(ranked: Int64Array, unit_vectors: Float32Array) -> MeanEstimate:
    """Mean cosine between the pairs of a list, over users; lists of one item are left out.

    unit_vectors: float32 (items, dim), unit-length rows. Source: Ziegler et al., WWW 2005.
    """
    values = []
    for rows in ranked:
        vectors = unit_vectors[rows[rows >= 0]].astype(np.float64)
        count = len(vectors)
        if count > 1:
            total = vectors.sum(axis=0)
            values.append((total @ total - (vectors**2).sum()) / (count * (count - 1)))
    return MeanEstimate.of(np.array(values))
