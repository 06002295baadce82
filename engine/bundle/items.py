"""The bundle's item table: ids, keys and the columns that eligibility and display need, mapped from Arrow files."""

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from engine.errors import BundleError, described
from engine.types import Int64Array, UInt8Array, item_keys

ITEM_FILES: Final = ("items.arrow", "item_keys_sorted.npy", "item_rows_sorted.npy")


class Items:
    """The items of one bundle, row by row. Read-only and memory-mapped: worker processes share the pages.

    sorted_keys, sorted_rows: int64 (items,), every item key in ascending order and the row that it belongs to.
    """

    def __init__(self, table: pa.Table, sorted_keys: Int64Array, sorted_rows: Int64Array) -> None:
        self.table = table
        self.sorted_keys = sorted_keys
        self.sorted_rows = sorted_rows
        ids = table.column("item_id").combine_chunks()
        _, offsets, text = ids.buffers()
        self._offsets = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
        self._text = memoryview(text or b"")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def ids(self, rows: Int64Array) -> tuple[str, ...]:
        """The ids of n rows, in their order. Cost: O(n)."""
        # Sliced here: Arrow's own take and to_pylist took 0.2 ms of a request for 50.
        starts, ends = self._offsets[rows].tolist(), self._offsets[rows + 1].tolist()
        return tuple(str(self._text[start:end], "utf-8") for start, end in zip(starts, ends, strict=True))

    def frame(self) -> pl.DataFrame:
        """The table as a data frame. Cost: some 100 MB at a million items."""
        return pl.DataFrame(pl.from_arrow(self.table))

    def stock(self) -> UInt8Array:
        """uint8 (ceil(items / 8),): bit `row & 7` of byte `row >> 3` is set where the item is in stock.

        Cost: O(items).
        """
        shown = self._column("in_stock").fill_null(True)
        return np.packbits(shown.to_numpy(), bitorder="little")

    def shown_on(self, surface: str) -> UInt8Array:
        """The same for items that may be shown on the surface; an item that names none may be shown everywhere."""
        surfaces = self._column("surfaces").fill_null("")
        shown = (surfaces == "") | surfaces.str.split("|").list.contains(surface)
        return np.packbits(shown.to_numpy(), bitorder="little")

    def _column(self, name: str) -> pl.Series:
        column = pl.from_arrow(self.table.column(name))
        assert isinstance(column, pl.Series)
        return column


def write_items(directory: Path, frame: pl.DataFrame) -> None:
    """Write ITEM_FILES for canonical items (engine.data.tables), in row order.

    Raises BundleError when two ids share one 64-bit key.
    """
    ids = frame["item_id"].to_list()
    keys = item_keys(ids)
    order = np.argsort(keys, kind="stable")
    clashes = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(clashes):
        first, second = order[clashes[0]], order[clashes[0] + 1]
        raise BundleError(f"items {ids[first]!r} and {ids[second]!r} have the same 64-bit key; rename one of them")
    table = frame.to_arrow()
    strings = {field.name: pa.string() for field in table.schema if pa.types.is_large_string(field.type)}
    schema = pa.schema([pa.field(field.name, strings.get(field.name, field.type)) for field in table.schema])
    with pa.OSFile(str(directory / "items.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.cast(schema).combine_chunks())
    np.save(directory / "item_keys_sorted.npy", keys[order])
    np.save(directory / "item_rows_sorted.npy", order.astype(np.int64))


def read_items(directory: Path) -> Items:
    """Map ITEM_FILES. Raises BundleError where they disagree."""
    path = directory / "items.arrow"
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid as error:
        raise BundleError(f"{path}: {described(error)}") from None
    sorted_keys = np.load(directory / "item_keys_sorted.npy", mmap_mode="r")
    sorted_rows = np.load(directory / "item_rows_sorted.npy", mmap_mode="r")
    if not len(sorted_keys) == len(sorted_rows) == table.num_rows:
        raise BundleError(f"{path}: {table.num_rows} items where the key index has {len(sorted_keys)}")
    return Items(table, sorted_keys, sorted_rows)
