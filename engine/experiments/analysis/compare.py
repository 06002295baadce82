"""One variant against the control, on one surface or among one kind of users: every metric at once, and day by day."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.experiments.analysis.bootstrap import bootstrap_lifts
from engine.experiments.analysis.metrics import BEFORE, METRICS, TOTALS, ExperimentData, Metric
from engine.experiments.analysis.plan import detectable_lift
from engine.experiments.analysis.report_query import ReportRules
from engine.experiments.analysis.significance import anytime_interval, anytime_p_value
from engine.experiments.analysis.statistics import (
    Estimate,
    Interval,
    Moments,
    adjusted_ratios,
    difference_interval,
    lift_interval,
    log_lift,
    p_value,
    ratio,
)
from engine.types import BoolArray, Float64Array


@dataclass(frozen=True, slots=True)
class Bounds:
    """A value and its interval; for a lift 0.12 is 12% more."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of one variant against the control. What the data do not say is None.

    control_value, treatment_value: as counted. lift, difference: relative and absolute, adjusted by the time before
    where that is known, at the one moment of the report. anytime: the same lift, valid however often one looks.
    unadjusted: the lift without the time before. bootstrap: the unadjusted one by resampling, the check of the formula.
    variance_kept: of the unadjusted variance, after the adjustment. detectable: the true lift that would have been
    found four times in five.
    """

    metric: str
    control_units: int
    treatment_units: int
    control_value: float | None
    treatment_value: float | None
    lift: Bounds | None
    difference: Bounds | None
    anytime: Bounds | None
    unadjusted: Bounds | None
    bootstrap: Bounds | None
    p_value: float | None
    anytime_p_value: float | None
    variance_kept: float | None
    detectable: float | None


def compare(
    counted: ExperimentData,
    totals: Float64Array,
    among: BoolArray,
    variant: int,
    control: int,
    rules: ReportRules,
    *,
    resample: bool,
) -> Iterator[Compared]:
    """Every metric of `variant` against `control`.

    Args:
        totals: float64 (units, len(TOTALS)), of one surface.
        among: bool (units,), whom to look at; who was never exposed on the surface is left out anyway.
        variant, control: places in counted.variants.
        resample: run the bootstrap, too.

    Cost: O(units), and about 0.3 s for the bootstrap.
    """
    exposed = among & (totals[:, TOTALS.index("requests")] > 0)
    columns = totals if counted.before is None else np.concatenate([totals, counted.before], axis=1)
    treated, held = (columns[exposed & (counted.variant == place)] for place in (variant, control))
    moments = Moments.of(treated), Moments.of(held)
    resampled = None
    if resample:
        sums = len(TOTALS)
        pairs = [ratio_columns(metric) for metric in METRICS]
        resampled = bootstrap_lifts(treated[:, :sums], held[:, :sums], pairs, rules.alpha)
    for place, metric in enumerate(METRICS):
        checked = resampled.take(place) if resampled is not None else None
        yield _compare(metric, *moments, checked, rules, adjust=counted.before is not None)


def ratio_columns(metric: Metric) -> tuple[int, int]:
    """The columns of the metric's numerator and denominator among the totals."""
    return TOTALS.index(metric.numerator), TOTALS.index(metric.denominator)


def covariate_columns(metric: Metric) -> list[int]:
    """The columns of the metric's covariates, which follow the totals."""
    return [len(TOTALS) + BEFORE.index(name) for name in metric.covariates]


def _compare(
    metric: Metric, treated: Moments, held: Moments, resampled: Interval | None, rules: ReportRules, *, adjust: bool
) -> Compared:
    places = ratio_columns(metric)
    plain = ratio(treated.columns(places)), ratio(held.columns(places))
    unadjusted = log_lift(*plain)
    treatment, control, lift = *plain, unadjusted
    if adjust:
        with_before = [*places, *covariate_columns(metric)]
        adjusted = adjusted_ratios(treated.columns(with_before), held.columns(with_before))
        treatment, control = adjusted.treatment, adjusted.control
        lift = log_lift(treatment, control)
    return Compared(
        metric=metric.name,
        control_units=int(held.count),
        treatment_units=int(treated.count),
        control_value=_number(plain[1].value),
        treatment_value=_number(plain[0].value),
        lift=bounds(lift_interval(lift, rules.alpha)),
        difference=bounds(difference_interval(treatment, control, rules.alpha)),
        anytime=bounds(anytime_interval(lift, rules.alpha, rules.lift_scale)),
        unadjusted=bounds(lift_interval(unadjusted, rules.alpha)),
        bootstrap=None if resampled is None else bounds(resampled),
        p_value=_number(p_value(lift)),
        anytime_p_value=_number(anytime_p_value(lift, rules.lift_scale)),
        variance_kept=_number(_share(lift.variance, unadjusted.variance)),
        detectable=_detectable(lift, control, held, treated, rules),
    )


def _detectable(lift: Estimate, control: Estimate, held: Moments, treated: Moments, rules: ReportRules) -> float | None:
    if not (np.isfinite(lift.variance) and control.value > 0):
        return None
    # From the variance of the lift itself: the units of both variants as they are.
    spread = float(np.sqrt(lift.variance / (1.0 / held.count + 1.0 / treated.count)))
    return detectable_lift(spread, float(held.count), float(treated.count), rules.alpha)


def bounds(interval: Interval) -> Bounds | None:
    """Plain numbers of a scalar interval; None where one of them is unknown."""
    numbers = [float(part) for part in (interval.value, interval.low, interval.high)]
    return Bounds(*numbers) if np.isfinite(numbers).all() else None


def _share(part: Float64Array, whole: Float64Array) -> Float64Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(part / whole)


def _number(value: Float64Array) -> float | None:
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Day:
    """Cumulative up to the end of a day (days since 1970, UTC). lift: for one look; anytime: for a look each day."""

    surface: str
    metric: str
    variant: str
    day: int
    lift: Bounds
    anytime: Bounds


def daily_lifts(counted: ExperimentData, control: int, rules: ReportRules) -> Iterator[Day]:
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
