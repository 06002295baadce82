"""Stage: a slate that is relevant and not all alike."""

import numpy as np

from engine.types import Candidates, Float32Array
from kernels.mmr import gather_unit_rows, mmr_select


def diversify(
    candidates: Candidates, item_vectors: Float32Array, diversity_weight: float, slate_size: int
) -> Candidates:
    """Pick the slate by maximal marginal relevance.

    Args:
        candidates: best first.
        item_vectors: float32 (items, dim), may be a strided view; compared by cosine.
        diversity_weight: in [0, 1]; 0 is the candidates' order.
        slate_size: how many; above the number of candidates, all.
    """
    if diversity_weight == 0.0 or len(candidates) <= 1:
        return candidates.head(slate_size)
    vectors = gather_unit_rows(item_vectors, candidates.rows, item_vectors.shape[1])
    picks = mmr_select(relevance(candidates.scores), vectors, 1.0 - diversity_weight, slate_size)
    return candidates.take(picks)


def relevance(scores: Float32Array) -> Float32Array:
    """Scores on the scale of cosine similarity: float32 (n,) in [0, 1], in the same order.

    Probabilities and popularity shares span orders of magnitude, so that positive scores are compared by their
    logarithms; the best becomes 1 and the worst 0.
    """
    values = np.log(scores) if scores.min() > 0 else scores
    low, high = values.min(), values.max()
    if high == low:
        return np.ones(len(scores), np.float32)
    scaled: Float32Array = ((values - low) / (high - low)).astype(np.float32)
    return scaled
