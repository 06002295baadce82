"""What may be shown on each surface, as bitmaps that are kept and changed bit by bit, never rebuilt in a request."""

from collections.abc import Sequence

import numpy as np

from engine.bundle.items import Items
from engine.catalog.changes import ItemState
from engine.catalog.new_items import NewItems
from engine.kernels.membership import assign_rows, test_rows
from engine.rules.compiled import CompiledRules
from engine.types import BoolArray, Int64Array, UInt8Array


class Visibility:
    """Per surface: shown there (by content), in stock, and allowed by the rules that hold for every request.

    Any number of threads may read; one at a time may change it.
    """

    def __init__(self, items: Items, surfaces: list[str], row_count: int, rules: CompiledRules) -> None:
        self._size = row_count // 8
        self._rules = rules
        self.removed = np.zeros(self._size, np.uint8)
        self.stock = self._padded(items.stock())
        # Without what the overlay says: what an item of the bundle goes back to.
        self._base_stock = self.stock.copy()
        self._base_shown = {surface: self._padded(items.shown_on(surface)) for surface in surfaces}
        self.shown = {surface: bitmap.copy() for surface, bitmap in self._base_shown.items()}
        self._base_count = len(items)
        self._kept = {surface: self._merged(surface) for surface in surfaces}

    def of_surface(self, surface: str) -> UInt8Array:
        """Read-only view of the kept bitmap: uint8 (rows / 8,)."""
        kept = self._kept[surface].view()
        kept.flags.writeable = False
        return kept

    def update(self, rows: Int64Array, states: Sequence[ItemState]) -> None:
        """Show what the overlay says of these rows: rows int64 (n,), their states in step."""
        base = rows < self._base_count
        stock = np.where(base, test_rows(self._base_stock, rows), True)
        for position, state in enumerate(states):
            if state.in_stock is not None:
                stock[position] = state.in_stock
        assign_rows(self.stock, rows, stock)
        places = [None if state.stored is None else frozenset(state.stored.item.surfaces) for state in states]
        removed = np.array([state.stored is not None and state.stored.removed for state in states], np.bool_)
        assign_rows(self.removed, rows, removed)
        for surface, shown in self.shown.items():
            here: BoolArray = base & test_rows(self._base_shown[surface], rows)
            for position, place in enumerate(places):
                if place is not None:
                    here[position] = not place or surface in place
            here &= ~removed
            assign_rows(shown, rows, here)
            allowed = test_rows(self._rules.surface_bitmap(surface), rows)
            assign_rows(self._kept[surface], rows, here & stock & allowed)

    def items(self, new: NewItems) -> UInt8Array:
        """The rows that hold an item, as a bitmap: uint8 (rows / 8,)."""
        rows = np.zeros(self._size * 8, np.bool_)
        rows[: self._base_count] = True
        rows[new.first_row : new.first_row + new.count] = True
        return np.packbits(rows, bitorder="little")

    def set_rules(self, rules: CompiledRules) -> None:
        self._rules = rules
        for surface in self._kept:
            # In one go into the same memory: a reader may see a part of it old.
            self._kept[surface][:] = self._merged(surface)

    def _merged(self, surface: str) -> UInt8Array:
        return self.shown[surface] & self.stock & self._rules.surface_bitmap(surface)

    def _padded(self, bitmap: UInt8Array) -> UInt8Array:
        padded = np.zeros(self._size, np.uint8)
        padded[: len(bitmap)] = bitmap
        return padded
