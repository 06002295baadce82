"""What may be believed: intervals for those who look more than once, many comparisons at once, and the planned split.

The interval of a fixed horizon holds at one moment, the planned end. Someone who looks daily and stops at the first
"significant" result is wrong far more often than 5% of the time. The normal-mixture bound here holds over all looks
together, for as many as there are; its price is its width.

Among twenty comparisons that all show nothing, one is "significant" at 5%: adjusted_p_values corrects for that.

Sample ratio mismatch: when there are not as many units in each variant as planned, users went missing (or were added)
in a way that depends on the variant: a crash, a redirect, a lossy log, a bot filter. Then the variants are no longer
alike in all but the treatment, and no statistics repair that.

Sources: the mixture sequential probability ratio test, Robbins 1970 and Johari, Koomen, Pekelis, Walsh, "Always valid
inference", Operations Research 2022; for estimates that are only asymptotically normal, as ratios
are: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences", Annals of Statistics 2024, section 2, whose rho^2 t is mixture variance over estimate variance here;
mismatches: Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments", KDD 2019.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from engine.errors import InvalidRequest
from engine.experiments.analysis.report_query import DEFAULT_LIFT_SCALE, Correction
from engine.experiments.analysis.statistics import Estimate, Interval, from_log
from engine.types import Float64Array


def anytime_interval(lift: Estimate, alpha: float, lift_scale: float = DEFAULT_LIFT_SCALE) -> Interval:
    """A log_lift as the relative lift with its always-valid interval.

    Args:
        lift: at any number of looks, float64 (...,).
        lift_scale: standard deviation of the mixture on the scale of the logarithm.
    """
    return from_log(lift, np.sqrt(lift.variance) * anytime_critical(lift.variance, alpha, lift_scale))


def anytime_critical(variance: Float64Array, alpha: float, lift_scale: float = DEFAULT_LIFT_SCALE) -> Float64Array:
    """What replaces the 1.96 of a fixed interval: float64 (...,), larger for any variance above 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        information = lift_scale**2 / variance
        squared = (1.0 + 1.0 / information) * (np.log1p(information) - 2.0 * np.log(alpha))
    critical: Float64Array = np.sqrt(squared)
    return critical


def anytime_p_value(lift: Estimate, lift_scale: float = DEFAULT_LIFT_SCALE) -> Float64Array:
    """For no lift at all: the chance of ever seeing so much evidence against it. At most 1.

    It is below alpha exactly where the always-valid interval of level 1 - alpha leaves out 0.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        information = lift_scale**2 / lift.variance
        z_squared = lift.value**2 / lift.variance
        log_evidence = 0.5 * (z_squared * information / (1.0 + information) - np.log1p(information))
        p: Float64Array = np.minimum(np.exp(-log_evidence), 1.0)
    return p


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


# Strict, because the check is made at every look, and a true mismatch of any size is soon far below it.
SRM_ALPHA = 0.001


@dataclass(frozen=True, slots=True)
class Split:
    """Units of each variant against the plan. surface: where; counts: of units; expected: shares that sum to 1."""

    surface: str
    counts: dict[str, int]
    expected: dict[str, float]
    p_value: float
    mismatch: bool


def check_split(surface: str, counts: Mapping[str, int], shares: Mapping[str, float]) -> Split:
    """Chi-square of the counts against the planned shares, which need not sum to 1: their proportions count.

    Raises:
        InvalidRequest: a variant was seen that has no planned share, or a share is not above 0.
    """
    unknown = sorted(set(counts) - set(shares))
    if unknown:
        raise InvalidRequest("shares", f"say nothing of the variant {unknown[0]!r}, which users have seen")
    wrong = sorted(name for name, share in shares.items() if not (np.isfinite(share) and share > 0))
    if wrong:
        raise InvalidRequest("shares", f"must be above 0, but that of {wrong[0]!r} is {shares[wrong[0]]:g}")
    names = sorted(shares)
    total_share = sum(shares.values())
    expected = {name: shares[name] / total_share for name in names}
    observed = np.array([counts.get(name, 0) for name in names], np.float64)
    if len(names) < 2 or observed.sum() == 0:
        p_value = 1.0
    else:
        planned = np.array([expected[name] for name in names]) * observed.sum()
        p_value = float(stats.chisquare(observed, planned).pvalue)
    seen = {name: counts.get(name, 0) for name in names}
    return Split(surface, seen, expected, p_value, p_value < SRM_ALPHA)
