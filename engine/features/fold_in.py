"""User vectors of a matrix factorization, solved from histories: numpy only, so that publishing needs no trainer."""

import numpy as np

from engine.features.history import Histories, HistoryStates
from engine.types import Float32Array, Int64Array

# Floats gathered at once: bounds memory to about 32 MB whatever the histories' lengths.
_CHUNK_FLOATS = 8_000_000


def fold_in(
    item_vectors: Float32Array, histories: Histories, states: HistoryStates, alpha: float, regularization: float
) -> Float32Array:
    """The least-squares user vector of each state, given fixed item vectors.

    Solves (Y'Y + Y'(C - I)Y + regularization * I) x = Y'C 1 where an item's confidence C is alpha times the number
    of the state's events on it. Item vectors may be scaled by training; the same vectors must be given here.

    Args:
        item_vectors: float32 (items, dim).
        histories: whose rows index item_vectors.
        states: n moments in them; a state without events gets a zero vector.
        alpha: confidence of one event, > 0.
        regularization: ridge term, > 0 or item vectors of full rank.

    Returns:
        float32 (n, dim).

    Cost: O(dim^2) per event of each state plus O(dim^3) per state; about 0.2 ms a state of 150 events at dim 64.
    Source: Hu, Koren & Volinsky, ICDM 2008, equation 4.
    """
    dim = item_vectors.shape[1]
    out = np.zeros((len(states), dim), np.float32)
    gram = item_vectors.T @ item_vectors + regularization * np.eye(dim, dtype=np.float32)
    # C - I is alpha * count - 1 per distinct item: every event brings alpha, an item's first event also brings -1.
    # First events of a prefix are first events of the whole history, so that this is worked out once.
    excess = (alpha - histories.first_events()).astype(np.float32)

    by_length = np.argsort(states.lengths, kind="stable")
    by_length = by_length[np.searchsorted(states.lengths[by_length], 1) :]
    while len(by_length):
        longest = int(states.lengths[by_length[min(len(by_length), 4096) - 1]])
        chunk = by_length[: max(1, min(4096, _CHUNK_FLOATS // (longest * dim)))]
        by_length = by_length[len(chunk) :]
        out[chunk] = _solve(item_vectors, gram, histories, states.users[chunk], states.lengths[chunk], excess, alpha)
    return out


def _solve(
    item_vectors: Float32Array,
    gram: Float32Array,
    histories: Histories,
    users: Int64Array,
    lengths: Int64Array,
    excess: Float32Array,
    alpha: float,
) -> Float32Array:
    columns = np.arange(int(lengths.max()))
    valid = columns[None, :] < lengths[:, None]
    positions = np.where(valid, histories.offsets[users][:, None] + columns, histories.offsets[users][:, None])
    vectors = item_vectors[histories.rows[positions]] * valid[:, :, None]
    weighted = vectors * excess[positions][:, :, None]
    left = gram + np.matmul(vectors.transpose(0, 2, 1), weighted)
    right = alpha * vectors.sum(axis=1)
    # In float64: float32 loses digits where one item was used many times.
    return np.linalg.solve(left.astype(np.float64), right.astype(np.float64)[:, :, None])[:, :, 0].astype(np.float32)
