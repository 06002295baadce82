"""Maximal marginal relevance in NumPy, as one writes it who has no kernel."""

import numpy as np

from engine.types import Float32Array, Int64Array


def numpy_mmr(relevance: Float32Array, units: Float32Array, relevance_weight: float, k: int) -> Int64Array:
    """Pick k of n items; the arguments are those of engine.kernels.mmr.mmr_slate, all finite.

    The largest similarity to the picked is carried along, so that each step costs one product of matrix and vector.

    Returns:
        int64 (min(k, n),), positions in slate order.

    Cost: O(k * n * dim). Source: Carbonell & Goldstein, SIGIR 1998.
    """
    picks: list[int] = []
    closest = np.full(len(units), -np.inf, np.float32)
    scores = relevance.copy()
    while len(picks) < min(k, len(units)):
        picks.append(int(np.argmax(scores)))
        np.maximum(closest, units @ units[picks[-1]], out=closest)
        scores = relevance_weight * relevance - (1.0 - relevance_weight) * closest
        scores[picks] = -np.inf
    return np.array(picks, np.int64)
