"""What a page is made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine_bench.report.drawing import Picture
from engine_bench.report.goals import Goal


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture; the caption says what it shows and how that was measured."""

    name: str
    title: str
    picture: Picture
    caption: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text, as many cells each as there are columns; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Section:
    """One subject. source: the name of the file that it is from. goals: those to be shown with it."""

    name: str
    title: str
    source: str
    paragraphs: Sequence[str]
    figures: Sequence[Figure] = field(default_factory=tuple)
    tables: Sequence[Table] = field(default_factory=tuple)
    goals: Sequence[Goal] = field(default_factory=tuple)
