"""Ratios of means over units, and what one variant earns relative to another, with their intervals.

Everything works on moments (means and covariances over units), never on requests: the unit that was assigned is the
unit that is independent, and a user's ten requests are not ten users. All functions take any leading axes, so
that a report's metrics or a thousand simulated experiments are one call.

CUPED: what users did before the experiment explains a part of what they do in it, and need not count as noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from engine.types import Float64Array


@dataclass(frozen=True, slots=True)
class Moments:
    """Of k columns over the units of one variant.

    count: float64 (...,), units. mean: float64 (..., k). covariance: float64 (..., k, k), with n - 1 below.
    """

    count: Float64Array
    mean: Float64Array
    covariance: Float64Array

    @staticmethod
    def of(values: Float64Array) -> "Moments":
        """Of float64 (..., n, k), one row a unit. With fewer than two units the covariance is NaN.

        Cost: O(n * k^2), one centred copy of the values.
        """
        count, columns = values.shape[-2:]
        leading = values.shape[:-2]
        if count == 0:
            nothing = np.full((*leading, columns), np.nan)
            return Moments(np.zeros(leading), nothing, np.full((*leading, columns, columns), np.nan))
        mean = values.mean(axis=-2)
        centred = values - mean[..., None, :]
        product = np.swapaxes(centred, -1, -2) @ centred
        covariance = product / (count - 1) if count > 1 else np.full_like(product, np.nan)
        return Moments(np.full(leading, float(count)), mean, covariance)

    def columns(self, places: Sequence[int]) -> "Moments":
        """Of these columns alone, in this order."""
        chosen = np.asarray(places)
        return Moments(self.count, self.mean[..., chosen], self.covariance[..., chosen[:, None], chosen[None, :]])


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the variance of that value (not of a unit's). Both float64 (...,)."""

    value: Float64Array
    variance: Float64Array


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bounds; float64 (...,) each, NaN where the data do not say."""

    value: Float64Array
    low: Float64Array
    high: Float64Array

    def take(self, *index: int) -> "Interval":
        """One of many."""
        return Interval(self.value[index], self.low[index], self.high[index])


def ratio(moments: Moments) -> Estimate:
    """The mean of column 0 over the mean of column 1, e.g. clicks per request, with its variance over units.

    Returns:
        NaN where the denominator's mean is 0 or fewer than two units are there.

    Source: the delta method for ratio metrics, Deng, Knoblich, Lu, KDD 2018.
    """
    numerator, denominator = moments.mean[..., 0], moments.mean[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(denominator > 0, numerator / denominator, np.nan)
        covariance = moments.covariance
        spread = covariance[..., 0, 0] - 2.0 * value * covariance[..., 0, 1] + value * value * covariance[..., 1, 1]
        # Rounding can leave a tiny negative where numerator and denominator are proportional.
        variance = np.maximum(spread, 0.0) / (denominator * denominator * moments.count)
    return Estimate(value, variance)


def log_lift(treatment: Estimate, control: Estimate) -> Estimate:
    """log(treatment / control) and its variance; NaN where one of them is not above 0.

    The logarithm keeps the interval of a relative lift above -100% and nearer to normal than the quotient itself is.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        known = (treatment.value > 0) & (control.value > 0)
        value = np.where(known, np.log(treatment.value / control.value), np.nan)
        variance = treatment.variance / treatment.value**2 + control.variance / control.value**2
    return Estimate(value, np.where(known, variance, np.nan))


def lift_interval(lift: Estimate, alpha: float) -> Interval:
    """The relative lift (0.12 is 12% more) with a two-sided interval of level 1 - alpha, from a log_lift."""
    return from_log(lift, critical(alpha) * np.sqrt(lift.variance))


def from_log(lift: Estimate, half_width: Float64Array) -> Interval:
    """Back from the logarithm, with this half width on its scale."""
    with np.errstate(over="ignore"):
        return Interval(np.expm1(lift.value), np.expm1(lift.value - half_width), np.expm1(lift.value + half_width))


def difference_interval(treatment: Estimate, control: Estimate, alpha: float) -> Interval:
    """The absolute difference with its interval of level 1 - alpha."""
    value = treatment.value - control.value
    half_width = critical(alpha) * np.sqrt(treatment.variance + control.variance)
    return Interval(value, value - half_width, value + half_width)


def p_value(lift: Estimate) -> Float64Array:
    """Two-sided, for no lift at all; NaN where the lift is unknown, 1 where nothing varies and nothing differs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(lift.value) / np.sqrt(lift.variance)
    z = np.where((lift.value == 0) & (lift.variance == 0), 0.0, z)
    p: Float64Array = 2.0 * stats.norm.sf(z)
    return p


def critical(alpha: float) -> float:
    """The normal quantile of a two-sided interval of level 1 - alpha: 1.96 for 0.05."""
    return float(stats.norm.isf(alpha / 2.0))


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Two variants' ratios, adjusted with the same coefficients."""

    treatment: Estimate
    control: Estimate


def adjusted_ratios(treatment: Moments, control: Moments) -> Adjusted:
    """Ratios of columns 0 and 1, adjusted by the columns after them, which hold what was before the experiment.

    Each unit's influence on the ratio is regressed on its covariates, with coefficients pooled within the two
    variants; what the covariates explain of a variant's deviation is taken out. Covariates from before the assignment
    cannot have been moved by it, so that the adjustment changes the noise and not what is estimated. Without covariates
    that vary, the ratios come back as they are.

    Args:
        treatment, control: of (..., 2 + c) columns.

    Cost: O(c^3) a comparison.
    Source: Deng, Xu, Kohavi, Walker, WSDM 2013; ratio metrics by linearization.
    """
    variants = (treatment, control)
    plain = [ratio(moments) for moments in variants]
    influence = [_influence_on_covariates(moments, estimate) for moments, estimate in zip(variants, plain, strict=True)]
    weights = [moments.count[..., None] for moments in variants]
    total = weights[0] + weights[1]
    spread = (
        sum(
            moments.covariance[..., 2:, 2:] * weight[..., None]
            for moments, weight in zip(variants, weights, strict=True)
        )
        / total[..., None]
    )
    with_ratio = sum(part * weight for part, weight in zip(influence, weights, strict=True)) / total
    centre = sum(moments.mean[..., 2:] * weight for moments, weight in zip(variants, weights, strict=True)) / total
    coefficients = _solve(np.asarray(spread), np.asarray(with_ratio))
    treated, held = (
        _adjust(moments, estimate, part, coefficients, np.asarray(centre))
        for moments, estimate, part in zip(variants, plain, influence, strict=True)
    )
    return Adjusted(treated, held)


def _influence_on_covariates(moments: Moments, estimate: Estimate) -> Float64Array:
    """float64 (..., c): covariance of a unit's influence, (y - ratio * x) / mean(x), with each covariate."""
    denominator = moments.mean[..., 1, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossed: Float64Array = (
            moments.covariance[..., 0, 2:] - estimate.value[..., None] * moments.covariance[..., 1, 2:]
        ) / denominator
    return crossed


def _solve(spread: Float64Array, with_ratio: Float64Array) -> Float64Array:
    """Regression coefficients, float64 (..., c); 0 for covariates that say nothing beyond the others."""
    scale = np.sqrt(np.maximum(np.einsum("...ii->...i", spread), 0.0))
    scale = np.where(scale > 0, scale, 1.0)
    # Seconds beside counts: correlations are better conditioned than covariances.
    correlation = np.nan_to_num(spread / (scale[..., :, None] * scale[..., None, :]))
    inverse = np.linalg.pinv(correlation, rcond=1e-8, hermitian=True)
    standardized = np.einsum("...ij,...j->...i", inverse, np.nan_to_num(with_ratio / scale))
    coefficients: Float64Array = standardized / scale
    return coefficients


def _adjust(
    moments: Moments, plain: Estimate, influence: Float64Array, coefficients: Float64Array, centre: Float64Array
) -> Estimate:
    explained = np.einsum("...i,...i->...", coefficients, moments.mean[..., 2:] - centre)
    own = np.einsum("...i,...ij,...j->...", coefficients, moments.covariance[..., 2:, 2:], coefficients)
    shared = np.einsum("...i,...i->...", coefficients, influence)
    variance = np.maximum(plain.variance + (own - 2.0 * shared) / moments.count, 0.0)
    return Estimate(plain.value - explained, variance)
