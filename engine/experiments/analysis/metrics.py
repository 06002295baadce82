"""What is measured: each metric a ratio of two sums over a person's time in the experiment."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# The columns of a unit's totals, in this order; see engine.experiments.analysis.read for how each is counted.
TOTALS: Final = (
    "requests", "items", "clicks", "clicked_requests", "sessions", "converted_sessions", "session_s", "revenue",
)  # fmt: skip
# What a unit did in the time before the experiment, in this order.
BEFORE: Final = ("clicks_before", "sessions_before", "purchases_before", "revenue_before", "session_s_before")


class Kind(StrEnum):
    """How a value is written."""

    SHARE = "share"
    SECONDS = "seconds"
    MONEY = "money"


@dataclass(frozen=True, slots=True)
class Metric:
    """A ratio metric.

    name: in JSON. title: for people. numerator, denominator: of TOTALS. covariates: of BEFORE, for CUPED.
    noun: what a positive lift is more of, as a sentence says it. fewer: the word for the contrary.
    """

    name: str
    title: str
    numerator: str
    denominator: str
    kind: Kind
    covariates: tuple[str, ...]
    noun: str
    fewer: str = "less"


METRICS: Final = (
    Metric(
        "request_ctr", "Requests with a click", "clicked_requests", "requests", Kind.SHARE,
        ("clicks_before", "sessions_before"), "requests that lead to a click", "fewer",
    ),
    Metric(
        "item_ctr", "Clicks per item shown", "clicks", "items", Kind.SHARE,
        ("clicks_before", "sessions_before"), "clicks per item shown", "fewer",
    ),
    Metric(
        "conversion", "Sessions with a purchase", "converted_sessions", "sessions", Kind.SHARE,
        ("purchases_before", "sessions_before"), "sessions with a purchase", "fewer",
    ),
    Metric(
        "session_length", "Session length", "session_s", "sessions", Kind.SECONDS,
        ("session_s_before", "sessions_before"), "time per session",
    ),
    Metric(
        "revenue", "Revenue per session", "revenue", "sessions", Kind.MONEY,
        ("revenue_before", "sessions_before"), "revenue per session",
    ),
)  # fmt: skip
