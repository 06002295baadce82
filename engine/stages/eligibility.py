"""Stage: which rows this request may return at all, as one packed bitmap that every later stage consults."""

from engine.bundle.items import Items
from engine.types import Int64Array, UInt8Array, item_keys
from kernels.membership import clear_rows, rows_of_keys


class Eligibility:
    """Per surface, the rows in stock and shown there: computed once and kept. Safe for concurrent readers."""

    def __init__(self, items: Items, surfaces: list[str]) -> None:
        self._items = items
        self._by_surface = {surface: items.eligibility(surface) for surface in surfaces}
        for bitmap in self._by_surface.values():
            bitmap.flags.writeable = False

    def of_surface(self, surface: str) -> UInt8Array:
        """The kept bitmap, read-only: uint8 (ceil(items / 8),)."""
        return self._by_surface[surface]

    def rows(self, keys: Int64Array) -> Int64Array:
        """int64 (n,): the row of each item key, -1 for an unknown one."""
        return rows_of_keys(self._items.sorted_keys, self._items.sorted_rows, keys)

    def open(self, surface: str, seen_keys: Int64Array, exclude_item_ids: tuple[str, ...]) -> UInt8Array:
        """This request's own bitmap: the surface's, less what the user has seen and the caller excludes.

        Cost: one copy of the bitmap (125 KB at a million items) and a binary search a key.
        """
        bitmap = self.of_surface(surface).copy()
        clear_rows(bitmap, self.rows(seen_keys))
        if exclude_item_ids:
            clear_rows(bitmap, self.rows(item_keys(exclude_item_ids)))
        return bitmap
