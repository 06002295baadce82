"""Determinantal point process: the slate whose items span the most, weighed against relevance."""

import math

from engine.kernels.arrays import Float32Array, Int64Array
from engine.kernels.constraints import SlateConstraints
from engine.kernels.slate import Slate, select_slate


def dpp_slate(
    relevance: Float32Array,
    embeddings: Float32Array,
    relevance_weight: float,
    k: int,
    duplicate_similarity: float = math.inf,
    constraints: SlateConstraints | None = None,
    rows: Int64Array | None = None,
) -> Slate:
    """Pick k items greedily, each adding the most to the log-determinant of the kernel of the slate.

    The kernel is `diag(q) S diag(q)`. S is the cosine Gram matrix moved to [0, 1], `(1 + cosine) / 2`, so that opposite
    items are unlike and not, as in the bare Gram matrix, redundant. The quality is `q = exp(alpha * relevance)` with
    `alpha = w / (2 * (1 - w))`, w being relevance_weight. A step then adds in proportion to
    `w * relevance + (1 - w) * log(residual)`, and this is what is computed: no exponential overflows, and a weight of 1
    is relevance order. The residual in (0, 1] is the part of an item's own diagonal that the earlier picks do not
    explain. Where they explain all of it (S has rank dim + 1) it counts as 1e-5, so that relevance decides.

    Unlike MMR, which sees the nearest pick alone, this sees all of them together: three items of a kind weigh more
    than two.

    Args:
        relevance: float32 (n,), comparable with log(residual); higher is better. NaN and infinity come after all
            others that break no more rules, in index order.
        embeddings: float32 (items, dim), any strides, may be memory-mapped; compared by cosine. A zero, NaN or infinite
            row is at right angles to all others.
        relevance_weight: in [0, 1]; 1 keeps relevance order.
        k: slate size; above n returns all n.
        duplicate_similarity: a candidate with at least this cosine to an earlier item gives way while anything else is
            left; 1 means identical but for rounding (1e-6), and well above 1 there are no duplicates.
        constraints: over n candidates and k positions.
        rows: int64 (n,), the row of each candidate in `embeddings`; by default they are its rows as they come.

    Returns:
        The slate; ties go to the lower index. The penalties are `-(1 - w) * log(residual)`, at least 0: their sum is
        `-(1 - w) * log det` of S over the slate.

    Raises:
        ValueError: as `select_slate`.

    Cost: O(k * n * dim + k^2 * dim) time at worst, O(n + k * dim) memory: S is an inner product of dim + 1 numbers, so
    that the paper's n rows of Cholesky factors are projections and need not be kept. Residuals only ever shrink, so
    that most items need not be compared with most picks (lazy greedy).
    Source: Chen, Zhang & Zhou, Fast Greedy MAP Inference for DPP, NeurIPS 2018, algorithm 1 and section 4; lazy
    evaluation: Minoux, 1978.
    """
    return select_slate(True, relevance, embeddings, relevance_weight, k, duplicate_similarity, constraints, rows)
