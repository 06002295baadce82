"""Turn ranking logits into click probabilities, and say how good those are."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from engine.types import Float64Array

_BINS = 15


@dataclass(frozen=True, slots=True)
class Calibration:
    """Probabilities are sigmoid(slope * logit + intercept), slope > 0: the order of the logits stays."""

    slope: float
    intercept: float

    def __call__(self, logits: Float64Array) -> Float64Array:
        return np.asarray(expit(self.slope * logits + self.intercept))


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """Quality of probabilities on candidates that neither training nor calibration saw, weighted to the full pool.

    click_rate: clicks a retrieved candidate. *_before: of sigmoid(logit) as trained; *_after: calibrated.
    log_loss: nats a candidate. ece: expected calibration error over bins of equal weight.
    """

    click_rate: float
    log_loss_before: float
    log_loss_after: float
    ece_before: float
    ece_after: float


def fit_calibration(logits: Float64Array, clicked: Float64Array, weights: Float64Array) -> Calibration:
    """Platt scaling by weighted maximum likelihood.

    Args:
        logits: (n,). clicked: (n,) of 0 and 1. weights: (n,), how many candidates each represents; this undoes the
            sampling of negatives, so that probabilities are those of a whole retrieved pool.

    Returns:
        The calibration; the identity when there are no clicks or nothing but clicks to learn from.

    Source: Platt 1999; the slope is kept positive by fitting its logarithm.
    """
    clicks = float((weights * clicked).sum())
    total = float(weights.sum())
    if not 0.0 < clicks < total:
        return Calibration(1.0, 0.0)

    def objective(parameters: Float64Array) -> tuple[float, Float64Array]:
        slope = np.exp(parameters[0])
        scaled = slope * logits + parameters[1]
        loss = -(weights * (clicked * log_expit(scaled) + (1.0 - clicked) * log_expit(-scaled))).sum()
        residual = weights * (expit(scaled) - clicked)
        return loss / total, np.array([(residual * slope * logits).sum(), residual.sum()]) / total

    start = np.array([0.0, np.log(clicks / (total - clicks))])
    # The loss of rare clicks is small, and so are its gradients: the default tolerances would stop at the start.
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-12})
    return Calibration(float(np.exp(found.x[0])), float(found.x[1]))


def calibration_report(
    calibration: Calibration, logits: Float64Array, clicked: Float64Array, weights: Float64Array
) -> CalibrationReport:
    """Log loss and expected calibration error before and after, on arrays (n,) as in fit_calibration."""
    before, after = Calibration(1.0, 0.0)(logits), calibration(logits)
    return CalibrationReport(
        click_rate=float(np.average(clicked, weights=weights)),
        log_loss_before=_log_loss(before, clicked, weights),
        log_loss_after=_log_loss(after, clicked, weights),
        ece_before=_expected_calibration_error(before, clicked, weights),
        ece_after=_expected_calibration_error(after, clicked, weights),
    )


def _log_loss(probabilities: Float64Array, clicked: Float64Array, weights: Float64Array) -> float:
    clipped = np.clip(probabilities, 1e-12, 1.0 - 1e-12)
    return float(-np.average(clicked * np.log(clipped) + (1.0 - clicked) * np.log1p(-clipped), weights=weights))


def _expected_calibration_error(probabilities: Float64Array, clicked: Float64Array, weights: Float64Array) -> float:
    order = np.argsort(probabilities, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    bins = np.minimum((share * _BINS).astype(np.int64), _BINS - 1)
    gap = np.bincount(bins, (weights * (probabilities - clicked))[order], minlength=_BINS)
    return float(np.abs(gap).sum() / weights.sum())
