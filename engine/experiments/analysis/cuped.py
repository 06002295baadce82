"""CUPED: what people did before the experiment explains a part of what they do in it, and need not count as noise."""

from dataclasses import dataclass

import numpy as np

from engine.experiments.analysis.statistics import Estimate, Moments, ratio
from engine.types import Float64Array


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
