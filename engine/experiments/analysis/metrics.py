"""What is measured: each metric a ratio of two sums over a user's time in the experiment; and the sums, as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from engine.types import Float64Array, Int64Array

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

    name: in JSON. title: for users. numerator, denominator: of TOTALS. covariates: of BEFORE, for CUPED.
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


ALL_SURFACES = "all"


@dataclass(frozen=True, slots=True)
class Excluded:
    """Who and what was left out. testers, crossovers, bots: units, each under the first that holds.

    repeats: exposures that were logged more than once, counted once.
    """

    testers: int
    crossovers: int
    bots: int
    repeats: int


@dataclass(frozen=True, slots=True)
class ExperimentData:
    """An experiment as arrays; a unit is a place in `variant`, from 0.

    variants: their names; surfaces: their names, where there are several ALL_SURFACES is the last.
    variant: int64 (units,), a place in variants. interaction_count: int64 (units,), device and country: (units,) str,
        all at the unit's first exposure.
    before: float64 (units, len(BEFORE)) or None where nothing is known of the time before.
    unit, surface, day: int64 (rows,), day since 1970 (UTC), ordered by day; values: float64 (rows, len(TOTALS)).
    first_ms, last_ms: of the exposures. events_end_ms: of the latest event.
    guardrails: one line a surface and variant.
    """

    variants: tuple[str, ...]
    surfaces: tuple[str, ...]
    variant: Int64Array
    interaction_count: Int64Array
    device: list[str]
    country: list[str]
    before: Float64Array | None
    unit: Int64Array
    surface: Int64Array
    day: Int64Array
    values: Float64Array
    first_ms: int
    last_ms: int
    events_end_ms: int
    excluded: Excluded
    guardrails: tuple[Mapping[str, Any], ...]

    def totals(self, surface: int) -> Float64Array:
        """float64 (units, len(TOTALS)): each unit's sums on a surface over all days."""
        rows = self.surface == surface
        unit, values = self.unit[rows], self.values[rows]
        return np.stack(
            [np.bincount(unit, values[:, column], len(self.variant)) for column in range(len(TOTALS))], axis=1
        )
