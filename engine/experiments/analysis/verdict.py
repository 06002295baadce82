"""The lines of a report, and what follows from them in words that need no statistics."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from engine.experiments.analysis.compare import Bounds, Compared
from engine.experiments.analysis.metrics import METRICS, Metric
from engine.experiments.analysis.report_query import ReportRules
from engine.experiments.analysis.significance import Split


class Outcome(StrEnum):
    """What may be said. more, less: the difference is sure, the correction for many lines included.

    unsure: it is not. unknown: the data cannot tell at all. unreadable: the split is not what was planned.
    """

    MORE = "more"
    LESS = "less"
    UNSURE = "unsure"
    UNKNOWN = "unknown"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the report. adjusted_p_value: corrected for all the lines. outcome, sentence: in plain words."""

    surface: str
    variant: str
    figures: Compared
    adjusted_p_value: float | None = None
    outcome: Outcome = Outcome.UNSURE
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A line about some of the users. dimension: users, device or country. value: which of them."""

    dimension: str
    value: str
    variant: str
    figures: Compared
    adjusted_p_value: float | None = None
    outcome: Outcome = Outcome.UNSURE


METRIC_OF = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True, slots=True)
class ReportVerdict:
    """readable: whether the figures may be read at all. headline: the first thing to know. sentences: what else."""

    readable: bool
    headline: str
    sentences: tuple[str, ...]


def outcome(figures: Compared, adjusted_p_value: float | None, rules: ReportRules, spoiled: bool) -> Outcome:
    """What may be said of one comparison. spoiled: its split is not what was planned."""
    if spoiled:
        return Outcome.UNREADABLE
    if figures.lift is None or adjusted_p_value is None:
        return Outcome.UNKNOWN
    if adjusted_p_value >= rules.alpha:
        return Outcome.UNSURE
    return Outcome.MORE if figures.lift.value > 0 else Outcome.LESS


def sentence(line: Comparison, rules: ReportRules) -> str:
    """One comparison in words."""
    metric = METRIC_OF[line.figures.metric]
    where = place(line.surface)
    lift = line.figures.lift
    match line.outcome:
        case Outcome.UNREADABLE:
            return f"Do not read {metric.title.lower()} {where}: the variants are not split as planned."
        case Outcome.UNKNOWN:
            return f"{metric.title} {where} cannot be compared: too little of it has happened."
        case Outcome.UNSURE:
            assert lift is not None
            return _unsure(line, metric, lift, rules)
        case Outcome.MORE | Outcome.LESS:
            assert lift is not None
            return _sure(line, metric, lift, rules)


def _sure(line: Comparison, metric: Metric, lift: Bounds, rules: ReportRules) -> str:
    word = "more" if line.outcome is Outcome.MORE else metric.fewer
    near, far = sorted((abs(lift.low), abs(lift.high)))
    said = (
        f"{line.variant} earns {percent(abs(lift.value))} {word} {metric.noun} {place(line.surface)}; we are "
        f"{rules.confidence} sure that it is between {percent(near)} and {percent(far)}."
    )
    anytime = line.figures.anytime
    if anytime is None or anytime.low * anytime.high > 0:
        return said
    return (
        f"{said} That holds at the planned end. For those who look earlier it is not sure yet: "
        f"{signed(anytime.low)} to {signed(anytime.high)}."
    )


def _unsure(line: Comparison, metric: Metric, lift: Bounds, rules: ReportRules) -> str:
    said = (
        f"No sure difference in {metric.title.lower()} {place(line.surface)}: {line.variant} is between "
        f"{signed(lift.low)} and {signed(lift.high)}."
    )
    if line.figures.p_value is not None and line.figures.p_value < rules.alpha:
        said += " Alone it would count as one; among so many comparisons one such is to be expected by chance."
    elif line.figures.detectable is not None:
        said += f" A change of {percent(line.figures.detectable)} would have been found four times in five."
    return said


def judge(comparisons: Sequence[Comparison], splits: Sequence[Split], rules: ReportRules) -> ReportVerdict:
    """The whole report in words."""
    bad = [split for split in splits if split.mismatch]
    if bad and all(line.outcome is Outcome.UNREADABLE for line in comparisons):
        return ReportVerdict(False, f"Do not read these numbers: {_mismatch(bad[-1])}", tuple(_advice()))
    warnings = [f"Do not read {place(split.surface)}: {_mismatch(split)}" for split in bad]
    found = [line for line in comparisons if line.outcome in (Outcome.MORE, Outcome.LESS)]
    # What holds everywhere first.
    found.sort(key=lambda line: line.surface != comparisons[-1].surface)
    if found:
        return ReportVerdict(True, found[0].sentence, (*warnings, *(line.sentence for line in found[1:])))
    unsure = [line for line in comparisons if line.outcome is Outcome.UNSURE]
    if not unsure:
        return ReportVerdict(True, "There is too little to compare yet.", tuple(warnings))
    headline = f"No difference is sure, in any of {len(unsure)} comparisons."
    return ReportVerdict(True, headline, (*warnings, *_what_could_be_found(unsure)))


def _what_could_be_found(unsure: Sequence[Comparison]) -> Iterator[str]:
    """Of the last surface, which is all of them where there are several."""
    for variant in dict.fromkeys(line.variant for line in unsure):
        own = [line for line in unsure if line.variant == variant and line.surface == unsure[-1].surface]
        parts = [
            f"{percent(line.figures.detectable)} in {METRIC_OF[line.figures.metric].title.lower()}"
            for line in own
            if line.figures.detectable is not None
        ]
        if parts:
            yield (
                f"What {variant} could have shown {place(own[0].surface)}, four times in five: a change of "
                f"{', '.join(parts)}."
            )


def _mismatch(split: Split) -> str:
    seen = " and ".join(f"{count:,} in {name}" for name, count in split.counts.items())
    planned = " and ".join(f"{100 * share:.4g}%" for share in split.expected.values())
    return (
        f"{seen}, where {planned} were planned. By chance that happens once in {_once_in(split.p_value)}; users are "
        "missing from one of the variants."
    )


def _advice() -> Iterator[str]:
    yield "The variants no longer differ by the treatment alone, and no statistics repair that."
    yield (
        "Look for what loses users in one variant: crashes and timeouts, lost exposures, a share that was changed on "
        "the way, bots that only one of them sees."
    )


def _once_in(p_value: float) -> str:
    times = 1.0 / max(p_value, 1e-9)
    return f"{times:,.0f} times" if times < 1e6 else "more than a million times"


def place(surface: str) -> str:
    """Where, in a sentence."""
    return "on all surfaces together" if surface == "all" else f"on {surface}"


def percent(lift: float) -> str:
    """12%, 8.3%, 0.42%: two digits that count, and two decimals at most."""
    value = abs(100.0 * lift)
    if value < 0.005:
        return "0%"
    decimals = 0 if value >= 10 else 1 if value >= 1 else 2
    return f"{value:.{decimals}f}%"


def signed(lift: float) -> str:
    """+12%, −8.3%, 0%."""
    sign = "" if abs(lift) < 5e-5 else "−" if lift < 0 else "+"
    return f"{sign}{percent(lift)}"
