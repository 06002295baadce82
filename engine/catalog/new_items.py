"""Items that came after the bundle. Their rows follow the bundle's in the same tables, up to a fixed capacity."""

from dataclasses import dataclass

import numpy as np

from engine.types import Int64Array


@dataclass(frozen=True, slots=True)
class NewItems:
    """The new items at one moment; immutable, replaced as a whole.

    keys: int64 (count,), the item keys of the rows from first_row on, in order of arrival. Another process may have
        other rows for the same items.
    sorted_keys, sorted_rows: int64 (count,), every new item's key in ascending order, and its row.
    """

    first_row: int
    keys: Int64Array
    sorted_keys: Int64Array
    sorted_rows: Int64Array

    @staticmethod
    def none(first_row: int) -> "NewItems":
        return NewItems(first_row, *(np.empty(0, np.int64) for _ in range(3)))

    @property
    def count(self) -> int:
        return len(self.keys)

    def with_keys(self, keys: Int64Array) -> "NewItems":
        """These and n more items, whose keys (int64 (n,)) are new, in the next rows."""
        rows = np.arange(self.first_row + self.count, self.first_row + self.count + len(keys), dtype=np.int64)
        every_key = np.concatenate([self.sorted_keys, keys])
        order = np.argsort(every_key, kind="stable")
        return NewItems(
            self.first_row,
            np.concatenate([self.keys, keys]),
            every_key[order],
            np.concatenate([self.sorted_rows, rows])[order],
        )

    def newest_first(self) -> Int64Array:
        """int64 (count,): the rows of new items, the latest first."""
        return np.arange(self.first_row + self.count - 1, self.first_row - 1, -1, dtype=np.int64)
