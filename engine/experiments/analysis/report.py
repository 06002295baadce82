"""The whole report: one pure function from what was counted to everything that is shown anywhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from engine.experiments.analysis.compare import Compared, Day, compare, daily_lifts
from engine.experiments.analysis.metrics import TOTALS, Excluded, ExperimentData
from engine.experiments.analysis.notes import notes
from engine.experiments.analysis.report_query import ReportQuery, ReportRules
from engine.experiments.analysis.significance import Split, adjusted_p_values, check_split
from engine.experiments.analysis.verdict import Comparison, ReportVerdict, Segment, judge, outcome, sentence
from engine.types import BoolArray, Float64Array

# Countries and devices beyond the commonest are too few users each to say anything.
SEGMENT_VALUES = 6


@dataclass(frozen=True, slots=True)
class Report:
    """All that is known. shares: planned; empty where nobody said. cut_surface: what the cuts are about."""

    experiment: str
    control: str
    variants: tuple[str, ...]
    surfaces: tuple[str, ...]
    first_ms: int
    last_ms: int
    rules: ReportRules
    shares: Mapping[str, float]
    excluded: Excluded
    verdict: ReportVerdict
    splits: tuple[Split, ...]
    comparisons: tuple[Comparison, ...]
    cut_surface: str
    cuts: tuple[Segment, ...]
    days: tuple[Day, ...]
    guardrails: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, and engine.v1.ExperimentReport: a line's figures stand in the line itself."""
        written = asdict(self)
        for key in ("comparisons", "cuts"):
            for line in written[key]:
                line |= line.pop("figures")
        return written


def make_report(counted: ExperimentData, question: ReportQuery) -> Report:
    """Compare every variant with the control, on each surface and in each metric, and say what follows.

    Raises:
        InvalidRequest: the control cannot be told, or the planned shares leave a variant out.

    Cost: O(surfaces * days * units) for the daily lifts; the bootstrap adds 0.3 s a surface.
    """
    rules = question.rules
    control = counted.variants.index(question.control_among(list(counted.variants)))
    splits = tuple(_splits(counted, question))
    bad = {split.surface for split in splits if split.mismatch}
    # A mismatch among everybody spoils every surface.
    spoiled = set(counted.surfaces) if counted.surfaces[-1] in bad else bad
    everyone = np.ones(len(counted.variant), bool)
    lines: list[Comparison] = []
    for place, surface in enumerate(counted.surfaces):
        totals = counted.totals(place)
        for variant in _treatments(counted, control):
            lines += [
                Comparison(surface, counted.variants[variant], figures)
                for figures in compare(counted, totals, everyone, variant, control, rules, resample=True)
            ]
    comparisons = tuple(_judged(lines, rules, spoiled))
    cuts = list(_segments(counted, totals, control, rules))
    return Report(
        experiment=question.experiment,
        control=counted.variants[control],
        variants=counted.variants,
        surfaces=counted.surfaces,
        first_ms=counted.first_ms,
        last_ms=counted.last_ms,
        rules=rules,
        shares=dict(question.shares),
        excluded=counted.excluded,
        verdict=judge(comparisons, splits, rules),
        splits=splits,
        comparisons=comparisons,
        cut_surface=counted.surfaces[-1],
        cuts=tuple(_judged_segments(cuts, rules, spoiled=counted.surfaces[-1] in spoiled)),
        days=tuple(daily_lifts(counted, control, rules)),
        guardrails=counted.guardrails,
        notes=notes(counted, comparisons, question, counted.variants[control]),
    )


def _treatments(counted: ExperimentData, control: int) -> list[int]:
    return [place for place in range(len(counted.variants)) if place != control]


def _splits(counted: ExperimentData, question: ReportQuery) -> Iterator[Split]:
    """Of each surface; that of everybody last."""
    if not question.shares:
        return
    for place, surface in enumerate(counted.surfaces):
        exposed = counted.totals(place)[:, TOTALS.index("requests")] > 0
        units = np.bincount(counted.variant[exposed], minlength=len(counted.variants))
        counts = {name: int(units[index]) for index, name in enumerate(counted.variants)}
        yield check_split(surface, counts, question.shares)


def _segments(counted: ExperimentData, totals: Float64Array, control: int, rules: ReportRules) -> Iterator[Segment]:
    """By new and known users, device and country, on the last surface, which is all of them where there are several."""
    for dimension, value, among in _groups(counted, rules):
        for variant in _treatments(counted, control):
            for figures in compare(counted, totals, among, variant, control, rules, resample=False):
                yield Segment(dimension, value, counted.variants[variant], figures)


def _groups(counted: ExperimentData, rules: ReportRules) -> Iterator[tuple[str, str, BoolArray]]:
    new = counted.interaction_count < rules.new_below
    yield "users", "new", new
    yield "users", "known", ~new
    for dimension, labels in (("device", counted.device), ("country", counted.country)):
        values = np.asarray(labels, dtype=object)
        names, counts = np.unique(values.astype(str), return_counts=True)
        for name in names[np.argsort(-counts, kind="stable")][:SEGMENT_VALUES]:
            yield dimension, str(name), values == name


def _judged(lines: Sequence[Comparison], rules: ReportRules, spoiled: set[str]) -> Iterator[Comparison]:
    adjusted = _adjusted([line.figures for line in lines], rules)
    for line, p in zip(lines, adjusted, strict=True):
        judged = replace(line, adjusted_p_value=p, outcome=outcome(line.figures, p, rules, line.surface in spoiled))
        yield replace(judged, sentence=sentence(judged, rules))


def _judged_segments(cuts: Sequence[Segment], rules: ReportRules, *, spoiled: bool) -> Iterator[Segment]:
    adjusted = _adjusted([cut.figures for cut in cuts], rules)
    for cut, p in zip(cuts, adjusted, strict=True):
        yield replace(cut, adjusted_p_value=p, outcome=outcome(cut.figures, p, rules, spoiled))


def _adjusted(figures: Sequence[Compared], rules: ReportRules) -> list[float | None]:
    """Corrected for each other. All surfaces together count as one more surface, which errs on the safe side."""
    values = np.array([np.nan if one.p_value is None else one.p_value for one in figures], np.float64)
    return [None if np.isnan(p) else float(p) for p in adjusted_p_values(values, rules.correction)]
