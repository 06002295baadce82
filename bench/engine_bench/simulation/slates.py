"""A fast source of slates: one order of items a user and variant, of which each request shows the next ones."""

from typing import Final

import numpy as np

from engine.types import Int64Array
from engine_bench.synthetic.world import World, normalise

# How much general appeal counts beside taste; as in the world itself.
_APPEAL: Final = 0.25
_AFFINITY: Final = 6.0
_PART_USERS: Final = 512


def popularity_slates(world: World, users: int, length: int) -> Int64Array:
    """int64 (users, length): what is generally liked, the same for everybody."""
    appeal = np.where(world.items.in_stock, world.items.log_appeal, -np.inf)
    return np.broadcast_to(np.argsort(-appeal, kind="stable")[:length], (users, length)).astype(np.int64)


def personal_slates(world: World, users: int, length: int, noise: float, random: np.random.Generator) -> Int64Array:
    """int64 (users, length): by a vector that has learned each user's long-term taste, but not exactly.

    Args:
        noise: length of the error, where the taste has length 1; 0: the taste is known.

    Cost: O(users * items * dim).
    """
    dim = world.size.dim
    error = random.standard_normal((users, dim), dtype=np.float32) * np.float32(noise / np.sqrt(dim))
    vectors = normalise(world.users.tastes[:users] + error)
    appeal = np.where(world.items.in_stock, _APPEAL * world.items.log_appeal, -np.inf)
    slates = np.empty((users, length), np.int64)
    for start in range(0, users, _PART_USERS):
        part = slice(start, start + _PART_USERS)
        scores = _AFFINITY * vectors[part] @ world.items.latents.T + appeal
        best = np.argpartition(-scores, length - 1, axis=1)[:, :length]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        slates[part] = np.take_along_axis(best, order, axis=1)
    return slates
