"""Rules over a catalogue, as bitmaps."""

import numpy as np
import polars as pl

from engine.rules.model import Rules
from engine.types import Int64Array, UInt8Array


class CompiledRules:
    """What rules make of items, row by row."""

    def __init__(self, rules: Rules, items: pl.DataFrame, capacity: int) -> None:
        self._everything = np.full(capacity // 8, 255, np.uint8)

    def update_rows(self, rows: Int64Array, items: pl.DataFrame) -> None:
        """Look at changed items again: rows int64 (n,), and their columns in step."""

    def surface_bitmap(self, surface: str) -> UInt8Array:
        """The rows that the rules allow there whatever the request."""
        return self._everything
