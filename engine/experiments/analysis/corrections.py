"""Many comparisons, one report: among twenty that all show nothing, one is "significant" at 5%."""

import numpy as np
from scipy import stats

from engine.experiments.analysis.question import Correction
from engine.types import Float64Array


def adjusted_p_values(p_values: Float64Array, correction: Correction) -> Float64Array:
    """float64 (n,), to be held against alpha; NaN stays NaN and counts for nothing.

    Sources: Holm, Scandinavian Journal of Statistics 1979; Benjamini & Hochberg, JRSS B 1995.
    """
    adjusted = p_values.astype(np.float64)
    known = np.flatnonzero(~np.isnan(p_values))
    if correction is Correction.NONE or len(known) == 0:
        return adjusted
    values = p_values[known]
    if correction is Correction.BH:
        adjusted[known] = stats.false_discovery_control(values)
        return adjusted
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted[known[order]] = np.minimum(steps, 1.0)
    return adjusted
