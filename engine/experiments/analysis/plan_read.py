"""What an experiment could find, from what users did lately: the archive as the source of a plan."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.errors import InvalidRequest
from engine.experiments.analysis.compare import ratio_columns
from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.metrics import METRICS, TOTALS, ExperimentData
from engine.experiments.analysis.plan import detectable_lift, units_needed
from engine.experiments.analysis.read import count
from engine.experiments.analysis.report_query import ReportQuery
from engine.experiments.analysis.statistics import Moments, ratio

WEEKS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class MetricPlan:
    """What one metric takes. value: as it is now. spread: of units, relative; see engine.experiments.analysis.plan.

    units: of control and treatment together, for the lift asked for; days: until so many have come.
    detectable: the lift that is found after each of WEEKS.
    """

    metric: str
    value: float
    spread: float
    units: int
    days: float
    detectable: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Traffic:
    """How many units come: units_per_day new ones a day, seen over these days."""

    units: int
    days: float
    units_per_day: float


def traffic_of(counted: ExperimentData) -> Traffic:
    """New units a day, the mean over the period. The first day's are mostly regulars: a long period says more."""
    days = max((counted.last_ms - counted.first_ms) / 86_400_000, 1.0)
    return Traffic(len(counted.variant), days, len(counted.variant) / days)


def plan_from_archive(
    archive: Archive, question: ReportQuery, lift: float, shares: Sequence[float], power: float
) -> tuple[Traffic, list[MetricPlan]]:
    """Plan a test of everybody whom the question's period and surface have seen, whatever they were shown.

    Args:
        lift: relative, to be found. shares: of control and treatment, in any proportion.

    Raises:
        InvalidRequest, DataError: as engine.experiments.analysis.read.count does.

    Metrics that nobody has moved are left out.
    """
    counted = count(archive, replace(question, experiment=""))
    totals = counted.totals(len(counted.surfaces) - 1)
    moments = Moments.of(totals[totals[:, TOTALS.index("requests")] > 0])
    traffic = traffic_of(counted)
    plans = []
    for metric in METRICS:
        estimate = ratio(moments.columns(ratio_columns(metric)))
        if not (estimate.value > 0 and np.isfinite(estimate.variance)):
            continue
        spread = float(np.sqrt(estimate.variance * moments.count) / estimate.value)
        plans.append(plan_metric(metric.name, float(estimate.value), spread, traffic, lift, shares, question, power))
    if not plans:
        raise InvalidRequest("archive", "nobody in this period did anything that a metric counts")
    return traffic, plans


def plan_metric(
    name: str,
    value: float,
    spread: float,
    traffic: Traffic,
    lift: float,
    shares: Sequence[float],
    question: ReportQuery,
    power: float,
) -> MetricPlan:
    """One metric's line of a plan."""
    alpha = question.rules.alpha
    units = units_needed(spread, lift, shares, alpha, power)
    control, treatment = (share / sum(shares) for share in shares)
    after = [traffic.units_per_day * 7 * weeks for weeks in WEEKS]
    return MetricPlan(
        metric=name,
        value=value,
        spread=spread,
        units=units,
        days=units / traffic.units_per_day,
        detectable=tuple(detectable_lift(spread, n * control, n * treatment, alpha, power) for n in after),
    )
