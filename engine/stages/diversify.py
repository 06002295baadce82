"""Stage: a slate that is relevant, not all alike, and as its surface wants it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.kernels.constraints import RELAXED_CAP, RELAXED_DUPLICATE, RELAXED_SHARE, SlateConstraints
from engine.kernels.dpp import dpp_slate
from engine.kernels.mmr import mmr_slate
from engine.kernels.slate import Slate
from engine.types import Candidates, Float32Array, Int64Array, UInt8Array

__all__ = [
    "RELAXED_CAP",
    "RELAXED_DUPLICATE",
    "RELAXED_SHARE",
    "Diversifier",
    "DppDiversifier",
    "MmrDiversifier",
    "SlateChoice",
    "SlateConstraints",
    "diversify",
    "relevance",
]


class Diversifier(Protocol):
    """Picks a slate greedily; what it means to be alike is its own."""

    def select(
        self,
        relevance: Float32Array,
        item_vectors: Float32Array,
        rows: Int64Array,
        diversity_weight: float,
        duplicate_similarity: float,
        slate_size: int,
        constraints: SlateConstraints,
    ) -> Slate:
        """min(slate_size, n) of n candidates, as `engine.kernels.slate` describes; a weight of 0 is relevance order.

        Args:
            relevance: float32 (n,) in [0, 1].
            item_vectors: float32 (items, dim), may be a strided view. rows: int64 (n,), which of them are candidates.
        """
        ...


@dataclass(frozen=True, slots=True)
class MmrDiversifier:
    """An item is as redundant as its nearest earlier item is near."""

    def select(
        self,
        relevance: Float32Array,
        item_vectors: Float32Array,
        rows: Int64Array,
        diversity_weight: float,
        duplicate_similarity: float,
        slate_size: int,
        constraints: SlateConstraints,
    ) -> Slate:
        weight = 1.0 - diversity_weight
        return mmr_slate(relevance, item_vectors, weight, slate_size, duplicate_similarity, constraints, rows)


@dataclass(frozen=True, slots=True)
class DppDiversifier:
    """An item is as redundant as all earlier items together explain it."""

    def select(
        self,
        relevance: Float32Array,
        item_vectors: Float32Array,
        rows: Int64Array,
        diversity_weight: float,
        duplicate_similarity: float,
        slate_size: int,
        constraints: SlateConstraints,
    ) -> Slate:
        weight = 1.0 - diversity_weight
        return dpp_slate(relevance, item_vectors, weight, slate_size, duplicate_similarity, constraints, rows)


@dataclass(frozen=True, slots=True)
class SlateChoice:
    """The m items picked, in slate order, and what each cost.

    penalties: float32 (m,), what diversity took off the score. relaxed: uint8 (m,), RELAXED_ bits of the constraints
    that the item breaks. positions: int64 (m,), where each stood among the candidates.
    """

    candidates: Candidates
    penalties: Float32Array
    relaxed: UInt8Array
    positions: Int64Array

    @staticmethod
    def head(candidates: Candidates, slate_size: int) -> "SlateChoice":
        """The first candidates as they come, nothing compared with anything."""
        count = min(slate_size, len(candidates))
        return SlateChoice(
            candidates.head(slate_size), np.zeros(count, np.float32), np.zeros(count, np.uint8), np.arange(count)
        )


def diversify(
    diversifier: Diversifier,
    candidates: Candidates,
    item_vectors: Float32Array,
    diversity_weight: float,
    duplicate_similarity: float,
    slate_size: int,
    constraints: SlateConstraints,
) -> SlateChoice:
    """Pick the slate.

    Args:
        candidates: best first.
        item_vectors: float32 (items, dim), may be a strided view; compared by cosine.
        diversity_weight: in [0, 1]; 0 is the candidates' order, as far as the constraints let it.
        duplicate_similarity: the cosine from which two items are the same to a reader; above 1 none are.
        slate_size: how many; above the number of candidates, all.
        constraints: over these candidates and this slate size; those that cannot be kept are relaxed, and reported.

    Raises:
        ValueError: constraints for other candidates or another slate size.
    """
    constraints.check(len(candidates), slate_size)
    ordered = diversity_weight == 0.0 and duplicate_similarity > 1.0
    if len(candidates) == 0 or (ordered and constraints.are_none):
        return SlateChoice.head(candidates, slate_size)
    if ordered:
        item_vectors = item_vectors[:, :0]  # nothing is compared, so that nothing need be fetched
    if diversity_weight == 0.0:
        # Their order is the candidates' own, even where lists with scores of different kinds were joined.
        wanted = np.linspace(1.0, 0.0, len(candidates), dtype=np.float32)
    else:
        wanted = relevance(candidates.scores)
    slate = diversifier.select(
        wanted, item_vectors, candidates.rows, diversity_weight, duplicate_similarity, slate_size, constraints
    )
    return SlateChoice(candidates.take(slate.picks), slate.penalties, slate.relaxed, slate.picks)


def relevance(scores: Float32Array) -> Float32Array:
    """Scores on the scale of cosine similarity: float32 (n,) in [0, 1], in the same order.

    Probabilities and popularity shares span orders of magnitude, so that positive scores are compared by their
    logarithms; the best becomes 1 and the worst 0.
    """
    return unit_range(np.log(scores) if scores.min() > 0 else scores)


def unit_range(values: Float32Array) -> Float32Array:
    """Values moved and scaled to [0, 1], in the same order; all 1 where all are equal."""
    low, high = values.min(), values.max()
    if high == low:
        return np.ones(len(values), np.float32)
    scaled: Float32Array = ((values - low) / (high - low)).astype(np.float32)
    return scaled
