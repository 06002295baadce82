"""Maximal marginal relevance: a slate that is relevant and not all alike."""

import math

from engine.kernels.arrays import Float32Array, Int64Array
from engine.kernels.constraints import SlateConstraints
from engine.kernels.slate import Slate, select_slate


def mmr_slate(
    relevance: Float32Array,
    embeddings: Float32Array,
    relevance_weight: float,
    k: int,
    duplicate_similarity: float = math.inf,
    constraints: SlateConstraints | None = None,
    rows: Int64Array | None = None,
) -> Slate:
    """Pick k items greedily, trading relevance against similarity to what is already picked.

    Each step takes the item with the largest
    `relevance_weight * relevance - (1 - relevance_weight) * max similarity to the picked`, among those that break the
    fewest rules; the first takes the most relevant one.

    Args:
        relevance: float32 (n,), comparable with cosine similarity; higher is better. NaN and infinity come after all
            others that break no more rules, in index order.
        embeddings: float32 (items, dim), any strides, may be memory-mapped; compared by cosine. A zero, NaN or infinite
            row is similar to nothing.
        relevance_weight: in [0, 1]; 1 keeps relevance order.
        k: slate size; above n returns all n.
        duplicate_similarity: a candidate with at least this cosine to an earlier item gives way while anything else is
            left; 1 means identical but for rounding (1e-6), and well above 1 there are no duplicates.
        constraints: over n candidates and k positions.
        rows: int64 (n,), the row of each candidate in `embeddings`; by default they are its rows as they come.

    Returns:
        The slate; ties go to the lower index. The penalties are `(1 - relevance_weight) * max similarity`, below 0
        for an item that is opposed to all earlier ones.

    Raises:
        ValueError: as `select_slate`.

    Cost: O(k * n * dim) time at worst, O(n) memory. Similarity to the picked only ever grows, so that an item's last
    known score bounds its present one, and most items need not be compared with most picks (lazy greedy).
    Source: Carbonell & Goldstein, SIGIR 1998; lazy evaluation: Minoux, 1978.
    """
    return select_slate(False, relevance, embeddings, relevance_weight, k, duplicate_similarity, constraints, rows)
