"""The check of the delta method: resample units, and see where the lift falls."""

from collections.abc import Sequence

import numpy as np

from engine.experiments.analysis.statistics import Interval
from engine.types import Float64Array

# Sums of this many random groups are resampled where there are more units than that.
MAX_GROUPS = 2_000


def bootstrap_lifts(
    treatment: Float64Array,
    control: Float64Array,
    ratios: Sequence[tuple[int, int]],
    alpha: float,
    replicates: int = 1_000,
    seed: int = 0,
) -> Interval:
    """Percentile intervals of the relative lifts of ratios, resampling whole units (the cluster bootstrap).

    Args:
        treatment: float64 (n, columns), one row a unit; control: the same, (m, columns).
        ratios: numerator and denominator of each, as columns.
        alpha: 0.05 for 95%.
        seed: the same data give the same interval.

    Returns:
        float64 (len(ratios),) each; the bounds are NaN where the control earns nothing in some replicate.

    More than 2,000 units are first put into 2,000 random groups, whose sums are as independent as the units are; that
    bounds the cost and moves the interval by 1.6% of its width or so (a standard deviation).

    Cost: O(n * columns + replicates * 2,000 * columns).
    Source: Efron & Tibshirani, 1993; groups: Chamandy et al., "Estimating uncertainty for massive data streams", 2012.
    """
    random = np.random.default_rng(seed)
    numerators, denominators = (np.array([pair[part] for pair in ratios]) for part in (0, 1))
    if len(treatment) == 0 or len(control) == 0:
        nothing = np.full(len(ratios), np.nan)
        return Interval(nothing, nothing, nothing)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed, replicated = (
            [sums[:, numerators] / sums[:, denominators] for sums in of_both]
            for of_both in (
                [values.sum(axis=0, keepdims=True) for values in (treatment, control)],
                [_resampled(values, replicates, random) for values in (treatment, control)],
            )
        )
        value = (observed[0] / observed[1] - 1.0)[0]
        lifts = replicated[0] / replicated[1] - 1.0
    known = np.isfinite(lifts).all(axis=0)
    low, high = np.quantile(np.where(known, lifts, 0.0), (alpha / 2.0, 1.0 - alpha / 2.0), axis=0)
    return Interval(value, np.where(known, low, np.nan), np.where(known, high, np.nan))


def _resampled(values: Float64Array, replicates: int, random: np.random.Generator) -> Float64Array:
    """float64 (replicates, columns): sums over as many units as there are, drawn again."""
    sums = _grouped(values, random)
    weights = random.multinomial(len(sums), np.full(len(sums), 1.0 / len(sums)), size=replicates)
    resampled: Float64Array = weights.astype(np.float64) @ sums
    return resampled


def _grouped(values: Float64Array, random: np.random.Generator) -> Float64Array:
    if len(values) <= MAX_GROUPS:
        return values
    # A shuffled round robin: groups of equal size, so that group sums are alike in distribution.
    group = random.permutation(len(values)) % MAX_GROUPS
    columns = range(values.shape[1])
    return np.stack([np.bincount(group, values[:, column], MAX_GROUPS) for column in columns], axis=1)
