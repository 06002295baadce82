import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.popularity import count_moves, counts_at
from tests.kernels import naive

LIFETIMES_MS = np.array([3.6e6, 8.64e7, 6.048e8])
LIFETIMES_MS.flags.writeable = False
ENTRY = np.dtype([("reference_ms", "<i8"), ("counts", "<f8", (3,))])


def random_entries(rng: np.random.Generator, size: int, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Packed entries, whose columns are strided, with rubbish behind the last one; and nothing marked."""
    entries = np.zeros(capacity, ENTRY)
    entries["reference_ms"] = rng.integers(0, 10**9, capacity)
    entries["counts"] = rng.random((capacity, 3)) * 50
    entries[size:] = (-1, math.nan)
    return entries, np.zeros(capacity, np.bool_)


def random_positions(rng: np.random.Generator, size: int, capacity: int, count: int) -> np.ndarray:
    """Entries that are there, and now and then the next new one, until there is no more room."""
    positions = []
    for _ in range(count):
        position = int(rng.integers(0, min(size + 1, capacity)))
        positions.append(position)
        size = max(size, position + 1)
    return np.array(positions, np.int64)


def random_moves(rng: np.random.Generator, count: int) -> np.ndarray:
    """Moments before and after, of whom some counted not at all before, and some do not after: int64 (2, count)."""
    moves = rng.integers(0, 10**9, (2, count))
    absent = rng.integers(0, 3, count)
    moves[0, absent == 0] = -1
    moves[1, absent == 1] = -1
    return moves


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(0, 10), room=st.integers(1, 10), count=st.integers(0, 60))
@settings(deadline=None, max_examples=150)
def test_people_move_as_one_by_one(seed: int, size: int, room: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    entries, changed = random_entries(rng, size, size + room)
    positions, moves = random_positions(rng, size, size + room, count), random_moves(rng, count)
    before = [(int(entry["reference_ms"]), entry["counts"].tolist()) for entry in entries[:size]]
    expected = naive.count_moves(before, list(zip(positions.tolist(), *moves.tolist(), strict=True)), LIFETIMES_MS)
    positions.flags.writeable = moves.flags.writeable = False
    grown = count_moves(entries["reference_ms"], entries["counts"], changed, size, positions, *moves, LIFETIMES_MS)
    assert grown == len(expected)
    assert entries["reference_ms"][:grown].tolist() == [reference_ms for reference_ms, _ in expected]
    for found, (_, counts) in zip(entries["counts"][:grown], expected, strict=True):
        np.testing.assert_allclose(found, counts, rtol=1e-9, atol=1e-9)
    assert set(np.flatnonzero(changed).tolist()) == set(positions.tolist())
    assert np.isnan(entries["counts"][grown:]).all()


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 60), cut=st.integers(0, 60))
@settings(deadline=None)
def test_a_call_for_each_part_gives_the_same_bits(seed: int, count: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    whole, marks = random_entries(rng, 3, 8)
    parts = whole.copy()
    positions, moves = random_positions(rng, 3, 8, count), random_moves(rng, count)
    grown = count_moves(whole["reference_ms"], whole["counts"], marks, 3, positions, *moves, LIFETIMES_MS)
    columns = parts["reference_ms"], parts["counts"], marks
    middle = count_moves(*columns, 3, positions[:cut], *moves[:, :cut], LIFETIMES_MS)
    assert count_moves(*columns, middle, positions[cut:], *moves[:, cut:], LIFETIMES_MS) == grown
    assert parts.tobytes() == whole.tobytes()


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(0, 20), now_ms=st.integers(-(10**9), 2 * 10**9))
@settings(deadline=None)
def test_counts_at_a_moment_are_those_of_each_entry(seed: int, size: int, now_ms: int) -> None:
    entries, _ = random_entries(np.random.default_rng(seed), size, size)
    entries.flags.writeable = False
    found = counts_at(entries["reference_ms"], entries["counts"], now_ms, LIFETIMES_MS)
    assert found.shape == (size, 3)
    for entry, counts in zip(entries, found, strict=True):
        elapsed = max(0, now_ms - int(entry["reference_ms"]))
        expected = [
            count * math.exp(-elapsed / lifetime)
            for count, lifetime in zip(entry["counts"].tolist(), LIFETIMES_MS.tolist(), strict=True)
        ]
        np.testing.assert_allclose(counts, expected, rtol=1e-12)


@pytest.mark.parametrize("positions", [[0, -1], [0, 3], [0, 2, 3, 4], [2, 2, 4]])
def test_a_position_that_is_not_there_is_refused_and_nothing_counted(positions: list[int]) -> None:
    entries, changed = random_entries(np.random.default_rng(0), 2, 4)
    before = entries.tobytes()
    times = np.zeros(len(positions), np.int64)
    with pytest.raises(ValueError, match="position"):
        count_moves(
            entries["reference_ms"], entries["counts"], changed, 2, np.array(positions), times, times, LIFETIMES_MS
        )
    assert entries.tobytes() == before
    assert not changed.any()


def test_arrays_that_do_not_fit_are_refused() -> None:
    entries, changed = random_entries(np.random.default_rng(0), 2, 4)
    references, counts, one = entries["reference_ms"], entries["counts"], np.zeros(1, np.int64)
    for arguments, reason in [
        ((references, counts, changed, 2, one, one[:0], one, LIFETIMES_MS), "times differ"),
        ((references, counts, changed[:3], 2, one, one, one, LIFETIMES_MS), "marks differ"),
        ((references, counts, changed, 2, one, one, one, LIFETIMES_MS[:2]), "lifetimes differ"),
        ((references, counts, changed, 5, one, one, one, LIFETIMES_MS), "do not fit"),
    ]:
        with pytest.raises(ValueError, match=reason):
            count_moves(*arguments)
    for times, lifetimes in [(references[:3], LIFETIMES_MS), (references, LIFETIMES_MS[:2])]:
        with pytest.raises(ValueError, match="lifetimes"):
            counts_at(times, counts, 0, lifetimes)
