"""Where the marks of a picture go: pure geometry, which the page's template draws as SVG."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.experiments.analysis.compare import Bounds, Day

# A wild interval of a rare metric must not squeeze all the others into a point.
WIDEST_LIFT = 1.0


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear axis: where low and high stand in [0, length], and round ticks between."""

    low: float
    high: float
    length: float

    def __call__(self, value: float) -> float:
        """The place of a value, kept within the axis."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(share * self.length, 2)

    def cuts(self, interval: Bounds) -> bool:
        """Whether the interval goes on beyond the axis."""
        return interval.low < self.low or interval.high > self.high

    @property
    def ticks(self) -> list[float]:
        """Round values on the axis, 0 among them."""
        span = self.high - self.low
        step = 10.0 ** math.floor(math.log10(span / 4.0))
        step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6.0)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [place * step for place in range(first, last + 1)]


def scale_around(intervals: Iterable[Bounds], length: float) -> Scale:
    """An axis on which all of these fit, with 0 on it, up to WIDEST_LIFT to either side."""
    ends = [end for interval in intervals for end in (interval.low, interval.high)]
    low = max(min([0.0, *ends]), -WIDEST_LIFT)
    high = min(max([0.0, *ends]), WIDEST_LIFT)
    margin = 0.06 * (high - low) or 0.01
    return Scale(low - margin, high + margin, length)


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric's lift day by day, in a box of width by height.

    line: SVG points. once, anytime: outlines of the bands. zero: the height of no lift. last: place of the last day.
    ticks: (height, lift).
    """

    line: str
    once: str
    anytime: str
    zero: float
    last: tuple[float, float]
    ticks: list[tuple[float, float]]


def curve(days: Sequence[Day], width: float, height: float) -> Curve:
    """At least one day, in order. The axis fits the fixed intervals of the later half; early ones reach beyond it."""
    later = days[len(days) // 2 :]
    scale = scale_around([bound for day in later for bound in (day.lift, day.anytime)], height)
    first, last = days[0].day, days[-1].day
    across = Scale(first, last if last > first else first + 1, width)

    def point(day: Day, value: float) -> str:
        return f"{across(day.day)},{round(height - scale(value), 2)}"

    def band(bounds: Sequence[Bounds]) -> str:
        upper = [point(day, bound.high) for day, bound in zip(days, bounds, strict=True)]
        lower = [point(day, bound.low) for day, bound in zip(days, bounds, strict=True)]
        return " ".join(upper + lower[::-1])

    return Curve(
        line=" ".join(point(day, day.lift.value) for day in days),
        once=band([day.lift for day in days]),
        anytime=band([day.anytime for day in days]),
        zero=round(height - scale(0.0), 2),
        last=(across(last), round(height - scale(days[-1].lift.value), 2)),
        ticks=[(round(height - scale(tick), 2), tick) for tick in scale.ticks],
    )
