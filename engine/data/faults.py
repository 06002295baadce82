"""What is wrong with a table: where, how often, and what was found there."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

# Rows and values that a report shows of one fault.
SHOWN_ROWS = 5
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Example:
    """A bad row, 1-based, header not counted, and what was found in it; None where nothing was.

    line: of the file, 1-based, where a row of text could not be read; 0 otherwise.
    """

    row: int
    found: str | None
    line: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with one table.

    source: the file, or what else the table is called. column: None where the whole table is meant, or rows of a file
    that cannot be read. examples: the first bad rows; none where the table as a whole is wrong. count: how many rows
    are bad.
    """

    source: str
    column: str | None
    reason: str
    examples: tuple[Example, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        if not self.examples:
            return f"{self.source}: {self.reason}"
        first = self.examples[0]
        if self.column is None:
            found = f": {first.found}" if first.found else ""
            return f"{self.source}: cannot be read: row {first.row} (line {first.line}): {self.reason}{found}"
        return (
            f"{self.source}: column {self.column!r}, row {first.row}: {self.reason}, found {first.found or 'nothing'}"
        )

    @property
    def of_rows(self) -> bool:
        """Whether it is gone once its rows are left out."""
        return bool(self.examples) and self.column is not None


def row_fault(bad: pl.Series, values: pl.Series, source: str, reason: str) -> Fault | None:
    """The fault of the rows where `bad` (bool (n,), null is false) is true, with what `values` holds there."""
    rows = bad.fill_null(False).arg_true()
    if not len(rows):
        return None
    first = rows.head(SHOWN_ROWS).to_list()
    return Fault(source, values.name, reason, tuple(Example(row + 1, shown(values[row])) for row in first), len(rows))


def shown(value: object) -> str | None:
    """A value as a message shows it, cut where it is long; None for nothing."""
    if value is None:
        return None
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def summary(faults: Sequence[Fault], directory: str) -> str:
    """One line: the first fault, and where the others are listed."""
    others = len(faults) - 1
    rows = faults[0].count - 1
    more = []
    if rows > 0:
        more.append(f"{rows:,} more {'row' if rows == 1 else 'rows'} like it")
    if others:
        more.append(f"{others} more {'problem' if others == 1 else 'problems'}")
    hint = f" ({' and '.join(more)}; `engine data check {directory}` lists all)" if more and directory else ""
    return f"{faults[0]}{hint}"
