"""Vectors that look like those of a catalogue, for index tests and benchmarks."""

import numpy as np

from engine.types import Float32Array


def clustered(
    item_count: int,
    dim: int,
    query_count: int,
    seed: int,
    items_per_cluster: int = 500,
    spread: float = 0.6,
    log_norm_deviation: float = 0.0,
) -> tuple[Float32Array, Float32Array]:
    """Items around cluster centres, and queries around the same centres.

    Args:
        spread: length of an item's own part where its cluster's part has length 1.
        log_norm_deviation: 0 gives unit-length items; otherwise lengths are log-normal with this deviation.

    Returns:
        items float32 (item_count, dim), queries float32 (query_count, dim).
    """
    rng = np.random.default_rng(seed)
    centres = _unit(rng.standard_normal((max(item_count // items_per_cluster, 1), dim), dtype=np.float32))

    def around_centres(count: int) -> Float32Array:
        own = rng.standard_normal((count, dim), dtype=np.float32) * np.float32(spread / np.sqrt(dim))
        return _unit(centres[rng.integers(0, len(centres), count)] + own)

    items = around_centres(item_count)
    if log_norm_deviation > 0:
        items *= np.exp(log_norm_deviation * rng.standard_normal((item_count, 1))).astype(np.float32)
    return items, around_centres(query_count)


def _unit(vectors: Float32Array) -> Float32Array:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
