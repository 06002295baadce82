"""Tables of text, and numbers with as many digits as they are worth."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine_bench.report.read import dig, number

Cell = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with as many cells as there are columns; the first cell names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @classmethod
    def of(cls, title: str, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Cell]) -> "Table":
        """One row for each object. columns: by their heading, what makes the cell of an object."""
        return cls(title, list(columns), [[cell(row) for cell in columns.values()] for row in rows])

    def markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        # A bar inside a cell would be the end of the cell.
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def ms(*path: str) -> Cell:
    """A cell with the milliseconds under these keys."""
    return lambda row: milliseconds(number(row, *path))


def count(*path: str) -> Cell:
    """A cell with the number under these keys."""
    return lambda row: amount(number(row, *path))


def part(*path: str) -> Cell:
    """A cell with the recall or share under these keys."""
    return lambda row: recall(number(row, *path))


def text(*path: str) -> Cell:
    """A cell with what is under these keys; empty where that is nothing."""
    return lambda row: str(dig(row, *path) or "")


def milliseconds(value: object) -> str:
    """Three digits or so: 0.043, 0.86, 12.3, 140; a dash for what is no number."""
    if not isinstance(value, int | float):
        return "–"
    if value == 0:
        return "0"
    if value < 0.1:
        return f"{value:.3f}"
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def amount(value: object) -> str:
    """Whole where it is large: 1.9e-09, 0.977, 1.95, 26.2, 21,400; a dash for what is no number."""
    if not isinstance(value, int | float):
        return "–"
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) < 1:
        return f"{value:.3f}" if abs(value) >= 0.001 else f"{value:.2g}"
    return milliseconds(value) if value > 0 else f"{value:,.1f}"


def recall(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"
