"""Stage: which rows this request may return at all, as one packed bitmap that every later stage consults."""

from typing import Protocol

from engine.kernels.membership import clear_rows
from engine.types import Int64Array, UInt8Array, item_keys


class Catalogue(Protocol):
    """What can be shown where, at this moment. Safe for concurrent readers."""

    def of_surface(self, surface: str) -> UInt8Array:
        """The rows in stock, shown on the surface and allowed there, read-only: uint8 (ceil(rows / 8),)."""
        ...

    def rows(self, keys: Int64Array) -> Int64Array:
        """int64 (n,): the row of each item key, -1 for an unknown one."""
        ...


def open_bitmap(catalogue: Catalogue, surface: str, exclude_item_ids: tuple[str, ...]) -> UInt8Array:
    """This request's own bitmap: the surface's, less what the caller excludes.

    Cost: one copy of the bitmap (125 KB at a million items) and a search a key.
    """
    bitmap = catalogue.of_surface(surface).copy()
    if exclude_item_ids:
        clear_rows(bitmap, catalogue.rows(item_keys(exclude_item_ids)))
    return bitmap
