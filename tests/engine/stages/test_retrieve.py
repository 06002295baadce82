"""What every index refuses before it searches."""

import numpy as np
import pytest

from engine.errors import EngineError
from engine.stages.retrieve import check_search

QUERY = np.ones(4, np.float32)


@pytest.mark.parametrize(("items", "size"), [(0, 0), (1, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_a_bitmap_has_a_bit_for_each_item(items: int, size: int) -> None:
    check_search(4, items, QUERY, 0, np.zeros(size, np.uint8))
    for wrong in {size - 1, size + 1} - {-1}:
        with pytest.raises(ValueError, match=f"bitmap of {size} bytes"):
            check_search(4, items, QUERY, 0, np.zeros(wrong, np.uint8))


def test_what_cannot_be_searched() -> None:
    bitmap = np.zeros(2, np.uint8)
    for query in (np.ones(3, np.float32), np.ones(4, np.float64), np.ones((1, 4), np.float32)):
        with pytest.raises(ValueError, match="float32 queries of 4"):
            check_search(4, 9, query, 1, bitmap)
    for wrong in (np.zeros(4, np.uint8)[::2], bitmap.astype(np.int8), bitmap[None]):
        with pytest.raises(ValueError, match="contiguous uint8 bitmap"):
            check_search(4, 9, QUERY, 1, wrong)
    with pytest.raises(ValueError, match="k must not be negative"):
        check_search(4, 9, QUERY, -1, bitmap)
    for broken in (np.nan, np.inf):
        with pytest.raises(EngineError, match="NaN or infinite"):
            check_search(4, 9, np.array([1, 1, broken, 1], np.float32), 1, bitmap)
