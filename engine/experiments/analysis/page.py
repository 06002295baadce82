"""The report as one HTML file that needs nothing else: styles, pictures and figures are all inside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from engine.experiments.analysis.compare import Day
from engine.experiments.analysis.metrics import METRICS, Kind
from engine.experiments.analysis.plots import Curve, Scale, curve, scale_around
from engine.experiments.analysis.report import Report
from engine.experiments.analysis.verdict import METRIC_OF, Comparison, Outcome, Segment, signed

# Widths in SVG units; the pictures themselves scale with the page.
INTERVAL_WIDTH = 360.0
CURVE_WIDTH, CURVE_HEIGHT = 320.0, 130.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Panel:
    """One surface and variant: its lines on one common axis, and its lifts day by day."""

    surface: str
    variant: str
    lines: Sequence[Comparison]
    scale: Scale
    curves: Sequence[tuple[str, Curve, Sequence[Day]]]
    unreadable: bool


@dataclass(frozen=True, slots=True)
class SegmentPanel:
    """One dimension's cuts of one variant, by metric, on one axis."""

    dimension: str
    variant: str
    values: Sequence[tuple[str, Sequence[Segment]]]
    scale: Scale


def render_page(report: Report) -> str:
    """The whole page. Cost: some milliseconds."""
    environment = Environment(
        loader=PackageLoader("engine.experiments.analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"signed": signed, "day": _day, "value": written}
    return environment.get_template("report.html.j2").render(
        report=report,
        metrics=METRIC_OF,
        panels=_panels(report),
        segment_panels=_segment_panels(report),
        curve_width=CURVE_WIDTH,
        curve_height=CURVE_HEIGHT,
        interval_width=INTERVAL_WIDTH,
        period=f"{_day_of_ms(report.first_ms)} to {_day_of_ms(report.last_ms)}",
        confidence=report.rules.confidence,
    )


def _panels(report: Report) -> list[Panel]:
    """All surfaces together first, because that is the first thing to know."""
    surfaces = [report.surfaces[-1], *report.surfaces[:-1]]
    treatments = [name for name in report.variants if name != report.control]
    panels = []
    for surface in surfaces:
        for variant in treatments:
            lines = [line for line in report.comparisons if (line.surface, line.variant) == (surface, variant)]
            known = [
                bound for line in lines for bound in (line.figures.lift, line.figures.anytime) if bound is not None
            ]
            unreadable = any(line.outcome is Outcome.UNREADABLE for line in lines)
            scale = scale_around(known, INTERVAL_WIDTH)
            panels.append(Panel(surface, variant, lines, scale, _curves(report, surface, variant), unreadable))
    return panels


def _curves(report: Report, surface: str, variant: str) -> list[tuple[str, Curve, Sequence[Day]]]:
    curves: list[tuple[str, Curve, Sequence[Day]]] = []
    for metric in METRICS:
        days = [day for day in report.days if (day.surface, day.variant, day.metric) == (surface, variant, metric.name)]
        if days:
            curves.append((metric.title, curve(days, CURVE_WIDTH, CURVE_HEIGHT), days))
    return curves


def _segment_panels(report: Report) -> list[SegmentPanel]:
    panels = []
    for dimension in dict.fromkeys(cut.dimension for cut in report.cuts):
        for variant in dict.fromkeys(cut.variant for cut in report.cuts):
            own = [cut for cut in report.cuts if (cut.dimension, cut.variant) == (dimension, variant)]
            values = [
                (value, [cut for cut in own if cut.value == value]) for value in dict.fromkeys(cut.value for cut in own)
            ]
            scale = scale_around([cut.figures.lift for cut in own if cut.figures.lift is not None], INTERVAL_WIDTH / 2)
            panels.append(SegmentPanel(dimension, variant, values, scale))
    return panels


def written(value: float | None, metric: str) -> str:
    """A metric's value for users."""
    if value is None:
        return "–"
    match METRIC_OF[metric].kind:
        case Kind.SHARE:
            return f"{100 * value:.3g}%"
        case Kind.SECONDS:
            return f"{value:.0f} s"
        case Kind.MONEY:
            return f"{value:,.2f}"


def _day(day: Any) -> str:
    moment = _EPOCH + timedelta(days=int(day))
    return f"{moment:%b} {moment.day}"


def _day_of_ms(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d")
