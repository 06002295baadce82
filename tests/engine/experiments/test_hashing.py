"""One key and many fall alike, and as the published mixer says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.experiments.hashing import BUCKETS, bucket, buckets, seed_of, unit_key, unit_keys

_words = st.integers(0, 2**64 - 1)


@given(st.lists(_words, min_size=1, max_size=20), _words)
def test_one_key_and_many_agree_with_splitmix64(keys: list[int], seed: int) -> None:
    """The reference is the finalizer of SplitMix64 (Steele, Lea, Flood 2014), modulo 2^64 in plain numbers."""
    many = buckets(np.array(keys, np.uint64), seed)
    assert many.dtype == np.int64
    for key, found in zip(keys, many.tolist(), strict=True):
        mixed = key ^ seed
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        assert found == bucket(key, seed) == (mixed ^ (mixed >> 31)) % BUCKETS


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))), max_size=5))
def test_keys_of_units(units: list[str]) -> None:
    assert unit_keys(units).tolist() == [unit_key(unit) for unit in units]


def test_a_salt_of_another_kind_is_another_seed() -> None:
    assert len({seed_of(kind, salt) for kind in ("layer", "experiment") for salt in ("a", "b", "")}) == 6
