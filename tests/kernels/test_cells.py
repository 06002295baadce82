import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels import cells
from tests.kernels import naive


@given(seed=st.integers(0, 2**32 - 1), dim=st.sampled_from([1, 7, 64, 100]), scanned=st.integers(0, 6))
@settings(deadline=None)
def test_cells_are_scanned_as_the_oracle_does(seed: int, dim: int, scanned: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 9, 6)
    contents = [(rng.integers(0, 256, (size, dim)).astype(np.uint8), rng.integers(-20, 90, size)) for size in sizes]
    # Codes and rows lie anywhere in the memory, rows where a number of 8 bytes may.
    memory, codes_at, rows_at = bytearray(), [], []
    for codes, rows in contents:
        memory += bytes(-len(memory) % 8 + 8 * int(rng.integers(0, 3)))
        rows_at.append(len(memory))
        memory += rows.tobytes() + bytes(int(rng.integers(0, 5)))
        codes_at.append(len(memory))
        memory += codes.tobytes()
    visited = rng.permutation(6)[:scanned]
    offsets = rng.standard_normal(scanned).astype(np.float32)
    weights = (rng.standard_normal(dim) / 255).astype(np.float32)
    bitmap = rng.integers(0, 256, 9).astype(np.uint8)
    read_only = np.frombuffer(bytes(memory), np.uint8)
    rows, scores = cells.scan_cells(
        read_only, np.array(codes_at), np.array(rows_at), sizes, visited, offsets, weights, bitmap
    )
    expected = naive.scan_cells([contents[cell] for cell in visited], offsets, weights, bitmap)
    assert (rows.dtype, scores.dtype) == (np.int64, np.float32)
    assert rows.tolist() == [row for row, _ in expected]
    np.testing.assert_allclose(scores, [score for _, score in expected], atol=1e-4)


def test_inner_products_match_numpy() -> None:
    rng = np.random.default_rng(0)
    for count, dim in ((0, 3), (1, 1), (50, 64), (7, 33)):
        table, query = rng.standard_normal((count, dim), np.float32), rng.standard_normal(dim, np.float32)
        np.testing.assert_allclose(cells.inner_products(table, query), table @ query, atol=1e-4)


@given(seed=st.integers(0, 2**32 - 1), density=st.floats(0, 1))
@settings(deadline=None)
def test_what_is_expected_above_a_threshold_is_what_the_oracle_says(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    products, deviations = rng.standard_normal((2, 20)).astype(np.float32)
    deviations = np.maximum(deviations, 0)
    sizes, visited = rng.integers(0, 1000, 20), rng.random(20) < 0.3
    threshold = float(products[3]) if seed % 3 == 0 else float(rng.standard_normal())
    expected = cells.expected_above(products, deviations, sizes, visited, threshold, density)
    oracle = naive.expected_above(products, deviations, sizes, visited, threshold, density)
    # What lies 4.8 deviations below the threshold is left out: at most 0.8 millionths of 1,000 items.
    np.testing.assert_allclose(expected, oracle, rtol=1e-3, atol=1e-3)
    assert (expected[visited] == 0).all()


def test_what_does_not_go_together_is_refused() -> None:
    none, one = np.zeros(0, np.uint8), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="do not match"):
        cells.inner_products(np.ones((2, 3), np.float32), np.ones(2, np.float32))
    with pytest.raises(ValueError, match="each that is scanned an offset"):
        cells.scan_cells(none, one, one, one, one, np.ones(2, np.float32), np.ones(2, np.float32), none)
    with pytest.raises(ValueError, match="each cell has a product"):
        cells.expected_above(np.ones(1, np.float32), np.ones(2, np.float32), one, np.zeros(1, np.bool_), 0.0, 1.0)
    for cell in (-1, 1):
        with pytest.raises(ValueError, match=r"cells must lie in \[0, 1\)"):
            cells.scan_cells(
                none, one, one, one, np.array([cell]), np.ones(1, np.float32), np.ones(2, np.float32), none
            )
