"""Where an item belongs: by its content at first, and more and more by who turned to it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.features.fold_in import fold_in
from engine.features.history import Histories
from engine.types import Float32Array, Float64Array, Int64Array

# The best of 2.5, 5, 10, 20 and 40 at five interactions, for a drawing of new items (seed 11 of ml-latest-small) that
# docs/quality.md does not show; from 5 to 20 little changes.
K_HALF = 10.0


@dataclass(frozen=True, slots=True)
class QueryMoments:
    """The query vectors of interactions with whatever item: mean float64 (dim,), covariance float64 (dim, dim)."""

    mean: Float64Array
    covariance: Float64Array

    @staticmethod
    def of(queries: Float32Array) -> "QueryMoments":
        """Of a sample float32 (n, dim), n >= 1, drawn as interactions come: who comes more often counts more often.

        Cost: O(n * dim^2); a few thousand are plenty.
        """
        mean = queries.mean(axis=0, dtype=np.float64)
        centred = queries - mean
        return QueryMoments(mean, centred.T @ centred / len(queries))


def moved_vectors(
    content: Float32Array,
    sums: npt.NDArray[np.floating],
    counts: npt.NDArray[np.number],
    moments: QueryMoments,
    k_half: float = K_HALF,
) -> Float32Array:
    """Item vectors of two towers, moved from content towards the users who turned to the items.

    The towers' softmax makes an item v likely for a query q in proportion to exp(q v). Over queries that are about
    normal, N(mean, S), those of the item's users are then about N(mean + S v, S): tilted, with the same spread. Read
    backwards, n such queries are evidence of v, and content is a prior N(content, I / precision) on it; the most
    likely v solves

        (n S + precision I) (v - content) = sum of queries - n (mean + S content)

    that is: how far the mean query of the item's users lies from where content expects it. Along a direction in which
    queries have the variance s, content keeps precision / (n s + precision) of its say and evidence has the rest:
    k / (k + k_half) with k = n s / (mean variance), since precision is k_half times the mean variance. Where queries
    hardly differ, few interactions say nothing, and content stays.

    Args:
        content: float32 (n, dim), from the item tower.
        sums: float (n, dim), over each item's interactions, of the user's query vector just before the interaction: a
            later one has the item in it. counts: (n,), how many they were, >= 0, decayed counts being as good.
        moments: of interactions with all items, in the same space.
        k_half: interactions at which evidence along an average direction weighs as much as content, > 0.

    Returns:
        float32 (n, dim), C-contiguous; content itself, to the bit, where the count is 0.

    Cost: O(dim^3 + n * dim^2).
    Source: exponential tilting of a normal (Efron, "Tweedie's formula", JASA 2011, section 2); prior as in Volkovs,
    Yu & Poutanen, NeurIPS 2017, where content replaces preferences.
    """
    variances, directions = np.linalg.eigh(moments.covariance)
    variances = np.maximum(variances, 0.0)
    precision = k_half * variances.mean()
    seen = np.asarray(counts) > 0
    out = np.array(content, np.float32, order="C")
    if precision == 0.0 or not seen.any():
        return out
    count = np.asarray(counts, np.float64)[seen, None]
    before = content[seen].astype(np.float64)
    surprise = (sums[seen] - count * moments.mean) @ directions - count * variances * (before @ directions)
    out[seen] = before + (surprise / (count * variances + precision)) @ directions.T
    return out


def folded_items(
    user_vectors: Float32Array,
    users: npt.NDArray[np.integer],
    rows: npt.NDArray[np.integer],
    item_count: int,
    alpha: float,
    regularization: float,
) -> Float32Array:
    """Item vectors of a matrix factorization from their users alone: `fold_in` with the two sides exchanged.

    There is no content in that space; an item that nobody turned to gets the zero vector, and the ridge term draws
    towards it those that few did.

    Args:
        user_vectors: float32 (users, dim), of all users: those who did not turn to an item count as well.
        users, rows: int (n,), who turned to which item.
        alpha, regularization: those that the user vectors were solved with.

    Returns:
        float32 (item_count, dim).

    Cost: as fold_in.
    Source: Hu, Koren & Volinsky, ICDM 2008, equation 5.
    """
    moments: Int64Array = np.zeros(len(rows), np.int64)
    histories = Histories.build(rows, users, moments.astype(np.uint8), moments, item_count)
    return fold_in(user_vectors, histories, histories.latest(), alpha, regularization)
