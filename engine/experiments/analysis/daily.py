"""The lift as it was known at the end of each day."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.experiments.analysis.compare import Bounds, bounds, ratio_columns
from engine.experiments.analysis.counted import Counted
from engine.experiments.analysis.metrics import METRICS, TOTALS
from engine.experiments.analysis.question import ReportRules
from engine.experiments.analysis.sequential import anytime_interval
from engine.experiments.analysis.statistics import Moments, lift_interval, log_lift, ratio


@dataclass(frozen=True, slots=True)
class Day:
    """Cumulative up to the end of a day (days since 1970, UTC). lift: for one look; anytime: for a look each day."""

    surface: str
    metric: str
    variant: str
    day: int
    lift: Bounds
    anytime: Bounds


def daily_lifts(counted: Counted, control: int, rules: ReportRules) -> Iterator[Day]:
    """Every surface, metric and variant, day by day, without the adjustment by the time before.

    Days on which a lift cannot be told yet are left out.

    Cost: O(surfaces * days * units).
    """
    for surface, name in enumerate(counted.surfaces):
        rows = np.flatnonzero(counted.surface == surface)
        day = counted.day[rows]
        running = np.zeros((len(counted.variant), len(TOTALS)))
        for today in np.unique(day):
            todays = rows[day == today]
            # A unit has at most one row a surface and day.
            running[counted.unit[todays]] += counted.values[todays]
            exposed = running[:, TOTALS.index("requests")] > 0
            moments = [
                Moments.of(running[exposed & (counted.variant == place)]) for place in range(len(counted.variants))
            ]
            for variant, treated in zip(counted.variants, moments, strict=True):
                if variant != counted.variants[control]:
                    yield from _of_day(name, variant, int(today), treated, moments[control], rules)


def _of_day(surface: str, variant: str, day: int, treated: Moments, held: Moments, rules: ReportRules) -> Iterator[Day]:
    for metric in METRICS:
        places = ratio_columns(metric)
        lift = log_lift(ratio(treated.columns(places)), ratio(held.columns(places)))
        once = bounds(lift_interval(lift, rules.alpha))
        anytime = bounds(anytime_interval(lift, rules.alpha, rules.lift_scale))
        if once is not None and anytime is not None:
            yield Day(surface, metric.name, variant, day, once, anytime)
