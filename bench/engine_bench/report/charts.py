"""The forms of picture that the sections fill with their figures."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from engine_bench.report.drawing import BLUE, GRID, INK, MARKERS, MUTED, ORANGE, PAPER, RED, SERIES, SOFT
from engine_bench.report.numbers import milliseconds


@dataclass(frozen=True, slots=True)
class Span:
    """A row from its p50 to its p99, with what it may take at most; `note` stands in the row's label."""

    label: str
    p50: float
    p99: float | None
    bound: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of one length; `text` is written at its end. pale: it is there to be compared with."""

    label: str
    value: float
    text: str
    bound: float | None = None
    pale: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """Points in order of x. texts: one a point, written beside it. hollow: points that do not count.

    pale: it is there to be compared with, and has no points of its own.
    """

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    texts: Sequence[str] = ()
    hollow: Sequence[bool] = ()
    pale: bool = False


_ROW_IN: Final = 0.42
# Of a legend: what fits into a line, and what a line's sample and the space around it take.
_WIDE_LETTERS, _NARROW_LETTERS, _HANDLE_LETTERS = 112, 52, 6


def rows_height(count: int, legend: bool = True) -> float:
    """Inches for this many rows with an axis."""
    return _ROW_IN * count + (1.15 if legend else 0.8)


def spans(figure: Any, narrow: bool, rows: Sequence[Span], unit: str = "milliseconds", bound: str = "budget") -> None:
    """Rows of p50 to p99 on a logarithmic axis, against a mark each."""
    axes = figure.add_subplot()
    places = range(len(rows))
    highest = 0.0
    for place, row in zip(places, rows, strict=True):
        p99 = row.p99 if row.p99 is not None else row.p50
        axes.plot([row.p50, p99], [place, place], color=BLUE, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(row.p50, place, "o", color=BLUE, markersize=8, label="p50" if place == 0 else None)
        if row.p99 is not None:
            axes.plot(p99, place, "s", color=ORANGE, markersize=7, label="p99" if place == 0 else None)
        if row.bound is not None:
            label = bound if row is next(each for each in rows if each.bound is not None) else None
            axes.plot(row.bound, place, "|", color=RED, markersize=14, markeredgewidth=3, label=label)
        both = milliseconds(row.p50) + (f" – {milliseconds(row.p99)}" if row.p99 is not None else "")
        axes.annotate(
            both,
            ((row.p50 * p99) ** 0.5, place),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=INK,
        )
        highest = max(highest, p99, row.bound or 0.0)
    lowest = min(row.p50 for row in rows)
    axes.set_xscale("log")
    axes.set_xlim(lowest / 2.2, highest * 2)
    _plain_logarithm(axes.xaxis)
    axes.set_yticks(list(places), [_label(row.label, row.note, narrow) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.75)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel(f"{unit} (logarithmic)")
    figure.legend(loc="outside upper left", ncols=3, handletextpad=0.3)


def ratios(figure: Any, narrow: bool, rows: Sequence[Bar], unit: str) -> None:
    """Rows of how many times, to both sides of once, where twice and half are equally far.

    What follows " · " in a row's text is for those who have room for it.
    """
    axes = figure.add_subplot()
    axes.barh(range(len(rows)), [row.value - 1 for row in rows], left=1, height=0.62, color=BLUE)
    for place, row in enumerate(rows):
        axes.annotate(
            row.text.partition(" · ")[0] if narrow else row.text,
            (max(row.value, 1), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    lowest, highest = min(1.0, *(row.value for row in rows)), max(2.0, *(row.value for row in rows))
    axes.set_xscale("log")
    axes.set_xlim(lowest * 0.85, highest**1.35)
    axes.axvline(1, color=MUTED, linewidth=1)
    _plain_logarithm(axes.xaxis)
    axes.set_yticks(range(len(rows)), [row.label.replace(", ", ",\n") if narrow else row.label for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel(unit if narrow else f"{unit} (logarithmic)")


def bars(figure: Any, narrow: bool, rows: Sequence[Bar], unit: str, bound: str = "at most") -> None:
    """Rows from zero."""
    axes = figure.add_subplot()
    axes.barh(
        range(len(rows)), [row.value for row in rows], height=0.62, color=[SOFT if row.pale else BLUE for row in rows]
    )
    highest = max(max(row.value, row.bound or 0.0) for row in rows) or 1.0
    for place, row in enumerate(rows):
        # Where the bound would lie under the text, the text comes behind it.
        reach = row.value + (0.85 if narrow else 0.4) * highest
        at = row.bound if row.bound is not None and row.value <= row.bound <= reach else row.value
        axes.annotate(
            row.text, (at, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9, color=INK
        )
        if row.bound is not None:
            first = row is next(each for each in rows if each.bound is not None)
            axes.plot(
                row.bound, place, "|", color=RED, markersize=20, markeredgewidth=3, label=bound if first else None
            )
    axes.set_yticks(range(len(rows)), [_label(row.label, "", narrow) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    # Room for what is written at the end of the longest.
    axes.set_xlim(0, highest * (1.75 if narrow else 1.3))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel(unit)
    if any(row.bound is not None for row in rows):
        figure.legend(loc="outside upper left")


def lines(
    figure: Any,
    narrow: bool,
    panels: Sequence[tuple[str, Sequence[Line]]],
    x_label: str,
    y_label: str,
    *,
    x_ticks: Sequence[tuple[float, str]] = (),
    x_log: bool = True,
    y_log: bool = False,
    bounds: Sequence[tuple[float, str]] = (),
    marks: Sequence[tuple[float, str]] = (),
) -> None:
    """Lines over an axis that is logarithmic in x, in panels beside each other, or below each other on a phone.

    Lines of the same label look the same in all panels. Of more than three panels two are in a row.
    """
    columns = 1 if narrow else len(panels) if len(panels) <= 3 else 2
    grid = figure.subplots(-(-len(panels) // columns), columns, sharey=True, sharex=True, squeeze=False).ravel()
    for unused in grid[len(panels) :]:
        unused.set_visible(False)
    counted = list(dict.fromkeys(line.label for _, drawn in panels for line in drawn if not line.pale))
    seen: dict[str, Any] = {}
    for axes, (title, drawn) in zip(grid, panels, strict=False):
        for line in drawn:
            number = 0 if line.pale else counted.index(line.label)
            color, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
            style = {"color": MUTED, "linestyle": "--"} if line.pale else {"color": color, "marker": marker}
            (handle,) = axes.plot(line.xs, line.ys, linewidth=1.8, **style)
            seen.setdefault(line.label, handle)
            for x, y, hollow in zip(line.xs, line.ys, line.hollow, strict=bool(line.hollow)):
                if hollow:
                    axes.plot(x, y, marker=marker, color=color, markerfacecolor=PAPER, markersize=8)
            for x, y, text in zip(line.xs, line.ys, line.texts, strict=bool(line.texts)):
                offset = _beside(x, y, drawn)
                axes.annotate(
                    text, (x, y), xytext=offset, textcoords="offset points", ha="center", fontsize=8, color=INK
                )
        if title:
            axes.set_title(title)
        if x_log:
            axes.set_xscale("log")
        if y_log:
            axes.set_yscale("log")
            _plain_logarithm(axes.yaxis)
        if x_ticks:
            axes.set_xticks([x for x, _ in x_ticks], [text for _, text in x_ticks])
            axes.xaxis.set_minor_locator(_nothing())
        axes.margins(x=0.1, y=0.16)
        axes.grid()
        for bound, text in bounds:
            axes.axhline(bound, color=RED, linewidth=1.5, linestyle=(0, (4, 3)))
            axes.annotate(
                text,
                (0.005, bound),
                xycoords=("axes fraction", "data"),
                xytext=(2, 3),
                textcoords="offset points",
                fontsize=8.5,
                color=RED,
            )
        for x, text in marks:
            axes.axvline(x, color=MUTED, linewidth=1.2, linestyle=":")
            axes.annotate(
                text,
                (x, 0.02),
                xycoords=("data", "axes fraction"),
                xytext=(-3, 0),
                textcoords="offset points",
                rotation=90,
                ha="right",
                fontsize=8.5,
            )
    if not y_log:
        # Only now: a limit that is set ends the fitting to whatever other panels hold.
        top = max(*(max(line.ys) for _, drawn in panels for line in drawn), *(bound for bound, _ in bounds), 0.0)
        # A little below zero: there are texts under the lowest points.
        grid[0].set_ylim(-0.08 * top, 1.15 * top)
    if narrow:
        grid[-1].set_xlabel(x_label)
    else:
        figure.supxlabel(x_label, fontsize=10)
    if len(grid) > columns or narrow:
        figure.supylabel(y_label, fontsize=10)
    else:
        grid[0].set_ylabel(y_label)
    fit = (_NARROW_LETTERS if narrow else _WIDE_LETTERS) // max(len(label) + _HANDLE_LETTERS for label in seen)
    beside = max(1, min(fit, 2 if narrow else 4))
    figure.legend(seen.values(), seen.keys(), loc="outside upper left", ncols=beside, handletextpad=0.5)


def _beside(x: float, y: float, drawn: Sequence[Line]) -> tuple[int, int]:
    """Where a point's text stands: below the lowest of several lines, above all others."""
    there = [each.ys[list(each.xs).index(x)] for each in drawn if each.texts and x in each.xs]
    return (0, -14) if len(there) > 1 and y <= min(there) else (0, 7)


def stacks(
    figure: Any,
    narrow: bool,
    rows: Sequence[tuple[str, float, float]],
    names: tuple[str, str],
    unit: str,
    bound: float | None = None,
) -> None:
    """Rows of two parts: what counts, and what does not."""
    axes = figure.add_subplot()
    first = [row[1] for row in rows]
    axes.barh(range(len(rows)), first, height=0.55, color=BLUE, label=names[0])
    axes.barh(range(len(rows)), [row[2] for row in rows], height=0.55, left=first, color=GRID, label=names[1])
    for place, (_, own, other) in enumerate(rows):
        axes.annotate(
            f"{own:,.0f} + {other:,.0f}",
            (own + other, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    if bound is not None:
        axes.axvline(bound, color=RED, linewidth=2, label=f"at most {bound:,.0f} of its own")
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(max(own + other for _, own, other in rows), bound or 0.0) * (1.4 if narrow else 1.2))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel(unit)
    figure.legend(loc="outside upper left", ncols=1 if narrow else 3)


def _label(text: str, note: str, narrow: bool) -> str:
    """A row's name and its note in lines that leave most of the width to the row."""
    width = 20 if narrow else 34
    return "\n".join(line for part in (text, note) for line in textwrap.wrap(part, width))


def _plain_logarithm(axis: Any) -> None:
    """0.1, 1, 10 instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", color=MUTED)


def _nothing() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
