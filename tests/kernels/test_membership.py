import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels import membership
from tests.kernels import naive

INT64 = st.integers(-(2**63), 2**63 - 1)


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@given(known=st.sets(INT64, max_size=50), asked=st.lists(INT64, max_size=20), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_rows_of_keys_matches_a_dictionary(known: set[int], asked: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sorted_keys = np.array(sorted(known), np.int64)
    sorted_rows = rng.permutation(len(known)).astype(np.int64)
    keys = rng.permutation(np.concatenate([np.array(asked, np.int64), sorted_keys[: len(asked)]]))
    rows = membership.rows_of_keys(frozen(sorted_keys), frozen(sorted_rows), frozen(keys))
    assert rows.dtype == np.int64
    assert rows.tolist() == naive.rows_of_keys(sorted_keys, sorted_rows, keys)


@settings(deadline=None)
@given(data=st.data())
def test_first_members_are_those_of_an_obvious_loop(data: st.DataObject) -> None:
    row_count = data.draw(st.integers(1, 70))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=row_count, max_size=row_count)), np.bool_)
    bitmap = membership.pack_mask(mask) | np.uint8(0)
    bitmap[-1] |= np.uint8(0xFF << (row_count % 8 or 8) & 0xFF)  # bits past the last row do not count
    rows = np.array(data.draw(st.lists(st.integers(-5, 80), max_size=60)), np.int64)
    wanted = data.draw(st.integers(0, 70))
    expected = [i for i, row in enumerate(rows) if 0 <= row < row_count and mask[row]][:wanted]
    assert membership.first_members(frozen(bitmap), frozen(rows), row_count, wanted).tolist() == expected


@settings(deadline=None)
@given(data=st.data())
def test_products_and_codes_are_those_of_an_obvious_loop(data: st.DataObject) -> None:
    mask = np.array(data.draw(st.lists(st.booleans(), max_size=40)), np.bool_)
    bitmap = membership.pack_mask(mask)
    rows = np.array(data.draw(st.lists(st.integers(-5, 60), max_size=60)), np.int64)
    product = np.array(data.draw(st.lists(st.floats(0.1, 10.0), min_size=len(rows), max_size=len(rows))), np.float64)
    codes = np.array(data.draw(st.lists(st.integers(-1, 9), max_size=50)), np.int32)

    def is_member(row: int) -> bool:
        return 0 <= row < len(mask) and bool(mask[row])

    multiplied = product.copy()
    membership.multiply_members(multiplied, frozen(bitmap), frozen(rows), 3.0)
    assert multiplied.tolist() == [
        value * 3.0 if is_member(row) else value for value, row in zip(product, rows, strict=True)
    ]
    known = [int(codes[row]) if 0 <= row < len(codes) else -1 for row in rows]
    assert membership.codes_of_rows(frozen(codes), frozen(rows)).tolist() == known
    among = [code if is_member(row) else -1 for code, row in zip(known, rows, strict=True)]
    assert membership.codes_of_rows(codes, rows, bitmap).tolist() == among


def test_products_and_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 products and 1 rows"):
        membership.multiply_members(np.ones(2), np.zeros(1, np.uint8), np.zeros(1, np.int64), 2.0)


def test_first_members_refuses_a_bitmap_that_is_too_short() -> None:
    with pytest.raises(ValueError, match="does not hold 9 rows"):
        membership.first_members(np.zeros(1, np.uint8), np.zeros(1, np.int64), 9, 1)


def test_rows_of_keys_refuses_halves_of_different_lengths() -> None:
    with pytest.raises(ValueError, match="differ"):
        membership.rows_of_keys(np.arange(3), np.arange(2), np.arange(1))


@given(seed=st.integers(0, 2**32 - 1), byte_count=st.integers(0, 40), row_count=st.integers(0, 60))
@settings(deadline=None)
def test_bits_match_the_oracle(seed: int, byte_count: int, row_count: int) -> None:
    rng = np.random.default_rng(seed)
    bitmap = rng.integers(0, 256, byte_count).astype(np.uint8)
    rows = rng.integers(-3, byte_count * 8 + 10, row_count)
    mask = naive.mask_of(bitmap)
    inside = [0 <= row < len(mask) for row in rows.tolist()]

    members = membership.test_rows(frozen(bitmap.copy()), frozen(rows))
    assert members.dtype == np.bool_
    assert members.tolist() == [ok and mask[row] for ok, row in zip(inside, rows.tolist(), strict=True)]

    membership.clear_rows(bitmap, rows)
    for ok, row in zip(inside, rows.tolist(), strict=True):
        if ok:
            mask[row] = False
    assert naive.mask_of(bitmap) == mask


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(0, 400))
@settings(deadline=None)
def test_packing_and_counting_match_the_mask(seed: int, size: int) -> None:
    mask = np.random.default_rng(seed).random(size) < 0.5
    bitmap = membership.pack_mask(mask)
    assert len(bitmap) == -(-size // 8)
    assert naive.mask_of(bitmap)[:size] == mask.tolist()
    assert not any(naive.mask_of(bitmap)[size:])
    full = np.full(len(bitmap) + 3, 255, np.uint8)
    full[: len(bitmap)] |= bitmap
    for row_count in {0, size // 2, size}:
        assert membership.count_rows(frozen(bitmap.copy()), row_count) == int(mask[:row_count].sum())
        assert membership.count_rows(full, row_count) == row_count


def test_a_bitmap_may_start_at_any_address() -> None:
    buffer = np.full(40, 255, np.uint8)
    assert membership.count_rows(buffer[3:], 290) == 290


def test_counting_past_the_bitmap_is_refused() -> None:
    with pytest.raises(ValueError, match="does not hold 9 rows"):
        membership.count_rows(np.zeros(1, np.uint8), 9)


def test_clearing_a_read_only_bitmap_is_refused() -> None:
    with pytest.raises(TypeError):
        membership.clear_rows(frozen(np.ones(2, np.uint8)), np.array([1]))


@pytest.mark.parametrize("count", [1, 2, 5, 1_000, 100_000])
@pytest.mark.parametrize("spread", ["even", "steep", "two heaps", "extremes"])
def test_rows_are_found_however_keys_are_spread(count: int, spread: str) -> None:
    rng = np.random.default_rng(count)
    least, most = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    even = rng.integers(least, most, count)
    keys = np.unique({
        "even": even,
        "steep": (rng.standard_exponential(count) ** 8 * count).astype(np.int64),
        "two heaps": np.concatenate([even[: count // 2], np.arange(count // 2 + 1)]),
        "extremes": np.concatenate([[least, most], np.arange(count) - count // 2]),
    }[spread])  # fmt: skip
    rows = rng.permutation(len(keys))
    asked = np.concatenate([keys, keys + 1, rng.integers(least, most, 100), [least, 0, most]])
    of_key = dict(zip(keys.tolist(), rows.tolist(), strict=True))
    found = membership.rows_of_keys(keys, rows, asked)
    assert found.tolist() == [of_key.get(key, -1) for key in asked.tolist()]
