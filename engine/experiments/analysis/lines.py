"""The lines of a report: a comparison with where it was made, and what follows from it."""

from dataclasses import dataclass
from enum import StrEnum

from engine.experiments.analysis.compare import Compared


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
class Cut:
    """A line about some of the people. dimension: users, device or country. value: which of them."""

    dimension: str
    value: str
    variant: str
    figures: Compared
    adjusted_p_value: float | None = None
    outcome: Outcome = Outcome.UNSURE
