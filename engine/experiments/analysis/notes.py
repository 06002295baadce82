"""What a reader must know before believing a report."""

from collections.abc import Iterator, Sequence

import numpy as np

from engine.experiments.analysis.compare import Compared
from engine.experiments.analysis.metrics import TOTALS, ExperimentData
from engine.experiments.analysis.report_query import HOUR_MS, Clock, Correction, ReportQuery
from engine.experiments.analysis.verdict import METRIC_OF, Comparison, place

# The interval by formula and that by resampling may differ by this part of the latter's width.
_TOLERATED = 0.25
# What a whole request may take, and by how much a share of bad answers may be above the control's.
LATENCY_BUDGET_MS = 100.0
WORSE_SHARE = 0.01
_BAD_SHARES = {
    "error_share": "failed requests",
    "degraded_share": "answers with a fallback in them",
    "empty_share": "empty answers",
}
# Fewer clicks or purchases than this in a variant, and no formula for large numbers holds.
_FEW = 30


def notes(
    counted: ExperimentData, comparisons: Sequence[Comparison], question: ReportQuery, control: str
) -> tuple[str, ...]:
    """In the order of their weight."""
    return (
        *_of_the_split(question),
        *_of_the_units(counted),
        *_of_the_period(counted, question),
        *_of_the_intervals(counted, comparisons),
        *_of_the_guardrails(counted, control),
        *_of_the_method(counted, comparisons, question),
    )


def _of_the_split(question: ReportQuery) -> Iterator[str]:
    if not question.shares:
        yield "The split was not checked, because the planned shares are not known. Until then nothing here is proven."


def _of_the_units(counted: ExperimentData) -> Iterator[str]:
    excluded = counted.excluded
    parts = [
        f"{number:,} {what}"
        for number, what in (
            (excluded.testers, "testers"),
            (excluded.bots, "by the bot rule"),
            (excluded.crossovers, "who saw two variants"),
        )
        if number
    ]
    if parts:
        yield f"Left out: {', '.join(parts)}."
    if excluded.crossovers > 0.01 * max(len(counted.variant), 1):
        yield "More than 1% saw two variants: a share or salt was changed on the way, or units are not stable."
    if excluded.repeats:
        yield f"{excluded.repeats:,} exposures were logged more than once and count once."


def _of_the_period(counted: ExperimentData, question: ReportQuery) -> Iterator[str]:
    if question.rules.clock is Clock.REQUEST:
        yield "Exposures are counted by the moment that each request was about, not by the server's clock."
    window_h = question.rules.window_ms / HOUR_MS
    yield f"A click or purchase counts for an exposure within {window_h:g} hours, by request, else by user and item."
    if counted.events_end_ms < counted.last_ms + question.rules.window_ms:
        yield "The last exposures' time to earn is not over yet, in all variants alike."
    if counted.events_end_ms == 0:
        yield "The archive has no events of these users: nothing can have been clicked."


def _of_the_intervals(counted: ExperimentData, comparisons: Sequence[Comparison]) -> Iterator[str]:
    rare = {
        METRIC_OF[line.figures.metric].title.lower()
        for line in comparisons
        if line.surface == counted.surfaces[-1] and _rare(counted, line)
    }
    if rare:
        yield f"Too rare for the intervals to be exact (fewer than {_FEW} in a variant): {', '.join(sorted(rare))}."
    for line in comparisons:
        if _disagree(line.figures):
            title = METRIC_OF[line.figures.metric].title.lower()
            yield (
                f"For {title} {place(line.surface)} resampling gives another interval than the formula: a few users "
                "weigh very much. Read it with care."
            )


def _rare(counted: ExperimentData, line: Comparison) -> bool:
    values = counted.totals(len(counted.surfaces) - 1)[:, TOTALS.index(METRIC_OF[line.figures.metric].numerator)]
    counts = np.bincount(counted.variant, values > 0, len(counted.variants))
    return bool(counts.min() < _FEW)


def _disagree(figures: Compared) -> bool:
    formula, resampled = figures.unadjusted, figures.bootstrap
    if formula is None or resampled is None:
        return False
    tolerated = _TOLERATED * (resampled.high - resampled.low)
    return abs(formula.low - resampled.low) > tolerated or abs(formula.high - resampled.high) > tolerated


def _of_the_guardrails(counted: ExperimentData, control: str) -> Iterator[str]:
    held = {line["surface"]: line for line in counted.guardrails if line["variant"] == control}
    for line in counted.guardrails:
        base = held.get(line["surface"])
        if base is None or line["variant"] == control:
            continue
        who = f"{line['variant']} {place(line['surface'])}"
        if (line["latency_p99_ms"] or 0.0) > LATENCY_BUDGET_MS:
            yield f"Guardrail: the p99 of {who} is {line['latency_p99_ms']:.0f} ms, above {LATENCY_BUDGET_MS:.0f} ms."
        for share, what in _BAD_SHARES.items():
            if line[share] > base[share] + WORSE_SHARE:
                yield f"Guardrail: {who} has {100 * line[share]:.1f}% {what}, {control} {100 * base[share]:.1f}%."


def _of_the_method(counted: ExperimentData, comparisons: Sequence[Comparison], question: ReportQuery) -> Iterator[str]:
    name = {
        Correction.HOLM: "Holm: 5% for any false claim at all",
        Correction.BH: "Benjamini and Hochberg: 5% of the claims may be false",
        Correction.NONE: "none",
    }[question.rules.correction].replace("5%", f"{100 * question.rules.alpha:g}%")
    known = sum(line.figures.p_value is not None for line in comparisons)
    yield f"Correction for {known} comparisons, by {name}. The intervals are those of one comparison alone."
    if counted.before is None:
        yield "Nothing is known of the time before, so that the lifts are not adjusted by it."
    else:
        kept = [line.figures.variance_kept for line in comparisons if line.figures.variance_kept is not None]
        if kept:
            yield (
                f"Lifts are adjusted by what users did in the {question.rules.before_days} days before (CUPED), which "
                f"takes away up to {100 * (1 - min(kept)):.0f}% of the variance."
            )
    yield "Cuts were not planned for: take them for questions, not for answers."
