"""An experiment as arrays: what was read of the archive, and all that statistics need."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.experiments.analysis.metrics import TOTALS
from engine.types import Float64Array, Int64Array

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
class Counted:
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
