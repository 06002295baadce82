"""Where a unit (a user or a visit) falls, under a salt: stable over processes, machines and versions.

A unit's id is hashed once (XXH3, 64 bits); each salt then mixes that key again, in a few arithmetic steps that NumPy
does for a million units at once. Two salts give two places that say nothing of each other.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import xxhash

from engine.config.experiments import BUCKETS
from engine.types import Int64Array, UInt64Array

_MASK: Final = (1 << 64) - 1
# The finalizer of SplitMix64: each bit of the key moves every bit of the result.
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def unit_key(unit_id: str) -> int:
    """Unsigned 64-bit key of a unit. Cost: 0.2 µs."""
    return xxhash.xxh3_64_intdigest(unit_id.encode())


def unit_keys(unit_ids: Sequence[str]) -> UInt64Array:
    """uint64 (n,) keys of n units, in their order."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, map(str.encode, unit_ids)), np.uint64, len(unit_ids))


def seed_of(kind: str, salt: str) -> int:
    """What a salt mixes with; the same salt of another kind ("layer", "experiment", …) is another seed."""
    return xxhash.xxh3_64_intdigest(f"{kind}:{salt}".encode())


def bucket(key: int, seed: int) -> int:
    """The place of one key under a seed, in [0, BUCKETS). Cost: 0.4 µs."""
    mixed = key ^ seed
    mixed = (mixed ^ mixed >> 30) * _FIRST & _MASK
    mixed = (mixed ^ mixed >> 27) * _SECOND & _MASK
    return (mixed ^ mixed >> 31) % BUCKETS


def buckets(keys: UInt64Array, seed: int) -> Int64Array:
    """The same of many keys: int64 (n,). Cost: 15 ns a key."""
    mixed = keys ^ np.uint64(seed)
    # In place from here on: at a million keys, fetching new memory takes longer than the arithmetic.
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    mixed %= np.uint64(BUCKETS)
    return mixed.view(np.int64)
