"""A request's own bitmap: the surface's, less what the caller excludes."""

import numpy as np

from engine.kernels.membership import pack_mask, rows_of_keys
from engine.kernels.membership import test_rows as rows_in
from engine.stages.eligibility import open_bitmap
from engine.types import Int64Array, UInt8Array, item_keys

COUNT = 20


class Shop:
    """Twenty items, of which the fifth is out of stock."""

    def __init__(self) -> None:
        keys = item_keys([f"item-{row}" for row in range(COUNT)])
        self._order = np.argsort(keys)
        self._keys = keys[self._order]
        self._bitmap = pack_mask(np.arange(COUNT) != 4)

    def of_surface(self, surface: str) -> UInt8Array:
        return self._bitmap

    def rows(self, keys: Int64Array) -> Int64Array:
        return rows_of_keys(self._keys, self._order, keys)


def test_a_request_has_its_own_bitmap() -> None:
    shop = Shop()
    bitmap = open_bitmap(shop, "home", ("item-2", "item-2", "another stranger"))
    assert np.flatnonzero(~rows_in(bitmap, np.arange(COUNT))).tolist() == [2, 4]
    assert np.flatnonzero(~rows_in(shop.of_surface("home"), np.arange(COUNT))).tolist() == [4]
