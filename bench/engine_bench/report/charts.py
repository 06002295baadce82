"""The charts of the report, drawn by matplotlib: SVG for the page, and a PNG of each beside it."""

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final, NamedTuple

from engine.errors import ConfigError
from engine_bench.report.read import number
from engine_bench.report.tables import Table, milliseconds, recall

# Light and dark; similar in strength, so that also readers who see few colours tell them apart.
PALETTE: Final = {
    "ink": ("#1b2330", "#e7eaf0"), "muted": ("#586373", "#a5afbd"), "grid": ("#dbe0e7", "#353e4b"),
    "blue": ("#0b63a9", "#6fb5f3"), "orange": ("#b65a02", "#f4a85c"), "green": ("#0a7757", "#52d0a6"),
    "purple": ("#7a3f9e", "#c89ce9"), "red": ("#b4133f", "#ff8ea7"), "paper": ("#ffffff", "#12161c"),
}  # fmt: skip
_INK, _MUTED, _GRID, _BLUE, _ORANGE, _GREEN, _PURPLE, _RED, _PAPER = (light for light, _ in PALETTE.values())
_SERIES: Final = (("o", _BLUE), ("s", _ORANGE), ("^", _GREEN), ("D", _PURPLE))
_WIDTH_IN, _ROW_IN, _AXIS_IN, _PNG_DPI = 8.2, 0.42, 1.1, 160
_STYLE: Final = {
    # Text stays text.
    "svg.fonttype": "none", "font.size": 10, "text.color": _INK, "axes.edgecolor": _MUTED, "axes.labelcolor": _INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.titlelocation": "left",
    "axes.axisbelow": True, "xtick.color": _MUTED, "ytick.color": _MUTED, "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK, "grid.color": _GRID, "legend.frameon": False, "legend.fontsize": 9,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture as an inline SVG element, whose colours are CSS variables, and as PNG bytes in light colours."""

    name: str
    title: str
    caption: str
    svg: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Section:
    """One subject. name: also of the macro that says what it is about. sources: the files that it is from."""

    name: str
    title: str
    sources: Sequence[str]
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()


class Row(NamedTuple):
    """One row. value: p50, or a bar's length. high: p99. bound: its limit. text: written at the end of a bar."""

    label: str
    value: float
    high: float | None = None
    bound: float | None = None
    text: str = ""


class Point(NamedTuple):
    """One point of a line. text: written beside it."""

    x: float
    y: float
    text: str = ""


# By the line's name.
Lines = Mapping[str, Sequence[Point]]


def timed(label: str, found: object, *path: str, bound: float | None = None) -> list[Row]:
    """A row of the p50 and p99 under these keys; none where there is no p50, which a logarithmic axis needs."""
    p50 = number(found, *path, "p50")
    return [Row(label, p50, number(found, *path, "p99"), bound)] if p50 else []


def series(
    found: Iterable[Mapping[str, Any]],
    x: str,
    y: str,
    line: str,
    panel: Callable[[Any], str] = lambda _: "",
    text: str = "",
) -> dict[str, dict[str, list[Point]]]:
    """Panels of lines from records, by the keys x, y and line.

    panel: makes a panel's title. text: key of a recall, which is written beside its point.
    """
    panels: dict[str, dict[str, list[Point]]] = {}
    for each in found:
        points = panels.setdefault(panel(each), {}).setdefault(str(each[line]), [])
        points.append(Point(each[x], each[y], recall(each.get(text)) if text else ""))
        points.sort()
    return panels


def ranges(name: str, title: str, caption: str, rows: Sequence[Row], unit: str = "milliseconds") -> Chart:
    """Rows from p50 to p99 on a logarithmic axis, with a mark at their bound. All values are above 0."""
    texts = [milliseconds(row.value) + (f" – {milliseconds(row.high)}" if row.high else "") for row in rows]
    ends = [row.high or row.value for row in rows]

    def paint(figure: Any) -> None:
        axes = _row_axes(figure, rows, f"{unit} (logarithmic)")
        places = range(len(rows))
        axes.hlines(places, [row.value for row in rows], ends, color=_BLUE, alpha=0.35, linewidth=5)
        axes.plot([row.value for row in rows], places, "o", color=_BLUE, markersize=8, label="p50")
        highs = [(row.high, place) for place, row in enumerate(rows) if row.high]
        if highs:
            axes.plot(*zip(*highs, strict=True), "s", color=_ORANGE, markersize=7, label="p99")
        _mark_bounds(axes, rows, "at most")
        for place, (row, end, text) in enumerate(zip(rows, ends, texts, strict=True)):
            middle = ((row.value * end) ** 0.5, place)
            axes.annotate(text, middle, (0, 8), textcoords="offset points", ha="center", fontsize=8.5)
        axes.set_xscale("log")
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.set_xlim(min(row.value for row in rows) / 2.2, 2 * max(max(row.bound or 0.0, *ends) for row in rows))
        _plain_numbers(axes.xaxis)
        figure.legend(loc="outside upper left", ncols=3)

    said = "; ".join(f"{row.label} {text} ms" for row, text in zip(rows, texts, strict=True))
    return _draw(name, title, caption, said, paint, _ROW_IN * len(rows) + _AXIS_IN)


def bars(
    name: str, title: str, caption: str, rows: Sequence[Row], unit: str, bound: str = "at most", times: bool = False
) -> Chart:
    """Bars from zero, with a mark at their bound.

    bound: which side of the mark is the good one. times: of ratios, from once and on a logarithmic axis.
    """

    def paint(figure: Any) -> None:
        axes = _row_axes(figure, rows, unit + (" (logarithmic)" if times else ""))
        base = 1.0 if times else 0.0
        axes.barh(range(len(rows)), [row.value - base for row in rows], left=base, height=0.62, color=_BLUE)
        _mark_bounds(axes, rows, bound)
        highest = max(max(row.value, row.bound or 0.0) for row in rows) or 1.0
        for place, row in enumerate(rows):
            # A text that would cover the mark is put to the right of it.
            covers = row.bound is not None and row.value <= row.bound <= row.value + 0.4 * highest
            at = (row.bound if covers else max(row.value, base), place)
            axes.annotate(row.text, at, (6, 0), textcoords="offset points", va="center", fontsize=9)
        if times:
            axes.set_xscale("log")
            _plain_numbers(axes.xaxis)
            axes.set_xlim(0.8 * min(1.0, *(row.value for row in rows)), 2 * highest**1.15)
        else:
            axes.set_xlim(0, 1.35 * highest)
        if any(row.bound is not None for row in rows):
            figure.legend(loc="outside upper left")

    said = "; ".join(f"{row.label} {row.text}" for row in rows)
    return _draw(name, title, caption, said, paint, _ROW_IN * len(rows) + _AXIS_IN)


def lines(
    name: str,
    title: str,
    caption: str,
    panels: Mapping[str, Lines],
    x: str,
    y: str,
    *,
    ticks: Mapping[float, str] | None = None,
    x_log: bool = True,
    y_log: bool = False,
    dashed: str = "",
    bounds: Mapping[float, str] | None = None,
    marks: Mapping[float, str] | None = None,
) -> Chart:
    """Lines in panels, two in a row; those of one name look the same in all panels.

    Args:
        panels: at least one, by its title. x, y: labels of the axes. ticks: labels by their x; each x by default.
        dashed: name of a line that is there to be compared with.
        bounds: horizontal lines, marks: vertical ones, with their text.
    """
    columns = min(len(panels), 2)
    height = 3.6 if len(panels) <= 2 else 1.5 + 2.3 * (-(-len(panels) // 2))
    if ticks is None:
        xs = {point.x for drawn in panels.values() for points in drawn.values() for point in points}
        ticks = {x: f"{x:g}" for x in sorted(xs)}
    names = dict.fromkeys(each for drawn in panels.values() for each in drawn if each != dashed)
    styles = {each: _SERIES[place % len(_SERIES)] for place, each in enumerate(names)}

    def paint(figure: Any) -> None:
        grid = figure.subplots(-(-len(panels) // columns), columns, sharex=True, sharey=True, squeeze=False).ravel()
        for unused in grid[len(panels) :]:
            unused.set_visible(False)
        legend: dict[str, Any] = {}
        for axes, (panel, drawn) in zip(grid, panels.items(), strict=False):
            axes.set_title(panel)
            for place, (label, points) in enumerate(drawn.items()):
                marker, color = styles.get(label, ("", _MUTED))
                style = "--" if label == dashed else "-"
                xs, ys = [point.x for point in points], [point.y for point in points]
                (legend[label],) = axes.plot(xs, ys, style, marker=marker, color=color, linewidth=1.8)
                # Below the first of several lines, above all others.
                offset = (0, -14 if len(drawn) > 1 and not place else 7)
                for point in points:
                    axes.annotate(
                        point.text, point[:2], offset, textcoords="offset points", ha="center", fontsize=8
                    )  # fmt: skip
            _scale(axes, x_log, y_log, ticks)
            for at, text in (bounds or {}).items():
                axes.axhline(at, color=_RED, linewidth=1.5, linestyle=(0, (4, 3)))
                axes.annotate(text, (0.01, at), (0, 3), ("axes fraction", "data"), "offset points", color=_RED)
            for at, text in (marks or {}).items():
                axes.axvline(at, color=_MUTED, linewidth=1.2, linestyle=":")
                axes.annotate(
                    text, (at, 0.02), (-3, 0), ("data", "axes fraction"), "offset points", rotation=90, ha="right"
                )  # fmt: skip
        if not y_log:
            grid[0].set_ylim(bottom=min(0.0, -0.08 * grid[0].get_ylim()[1]))
        figure.supxlabel(x + (" (logarithmic)" if x_log else ""), fontsize=10)
        figure.supylabel(y + (" (logarithmic)" if y_log else ""), fontsize=10)
        columns_of_legend = max(1, min(4, 110 // max(len(label) + 6 for label in legend)))
        figure.legend(legend.values(), legend.keys(), loc="outside upper left", ncols=columns_of_legend)

    said = "; ".join(
        f"{panel} {label}: " + ", ".join(f"{milliseconds(point.y)} at {point.x:g}" for point in points)
        for panel, drawn in panels.items()
        for label, points in drawn.items()
    )
    return _draw(name, title, caption, said, paint, height)


def _row_axes(figure: Any, rows: Sequence[Row], unit: str) -> Any:
    axes = figure.add_subplot()
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel(unit)
    return axes


def _mark_bounds(axes: Any, rows: Sequence[Row], label: str) -> None:
    marks = [(row.bound, place) for place, row in enumerate(rows) if row.bound is not None]
    if marks:
        axes.plot(*zip(*marks, strict=True), "|", color=_RED, markersize=18, markeredgewidth=3, label=label)


def _scale(axes: Any, x_log: bool, y_log: bool, ticks: Mapping[float, str]) -> None:
    from matplotlib.ticker import NullLocator

    axes.grid()
    axes.margins(x=0.1, y=0.16)
    if x_log:
        axes.set_xscale("log")
    if y_log:
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.xaxis.set_minor_locator(NullLocator())


def _plain_numbers(axis: Any) -> None:
    """0.1, 1, 10 in place of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _draw(name: str, title: str, caption: str, said: str, paint: Callable[[Any], None], height_in: float) -> Chart:
    """said: the chart in words, for readers who do not see it. Raises ConfigError where matplotlib is not installed."""
    try:
        import matplotlib.figure
    except ImportError:
        raise ConfigError(
            "the report's charts need the package matplotlib, which comes with the bench: pip install ./bench"
        ) from None
    # Ids are the same in every run, and differ from those of all other charts.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = matplotlib.figure.Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        paint(figure)
        vector, raster = io.StringIO(), io.BytesIO()
        figure.savefig(vector, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")
        figure.savefig(raster, format="png", dpi=_PNG_DPI, facecolor=_PAPER)
    return Chart(name, title, caption, _inline(vector.getvalue(), f"{title}: {said}"), raster.getvalue())


def _inline(svg: str, label: str) -> str:
    """matplotlib's file as an element of a page, in the page's colours."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Groups are numbered the same in every chart, and nothing refers to them.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'<svg[^>]*(viewBox="[^"]*")[^>]*>', r'<svg \1 role="img" aria-label="{label}">', svg, count=1)
    for variable, (light, _) in PALETTE.items():
        svg = svg.replace(light, f"var(--{variable})")
    return svg.replace("{label}", escape(label), 1)
