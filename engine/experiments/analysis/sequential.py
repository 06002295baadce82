"""Intervals for those who look more than once: valid at every look at the same time.

The interval of a fixed horizon holds at one moment, the planned end. Someone who looks daily and stops at the first
"significant" result is wrong far more often than 5% of the time. The normal-mixture bound here holds over all looks
together, for as many as there are; its price is its width.

Sources: the mixture sequential probability ratio test, Robbins 1970 and Johari, Koomen, Pekelis, Walsh, "Always valid
inference", Operations Research 2022; for estimates that are only asymptotically normal, as ratios
are: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences", Annals of Statistics 2024, section 2, whose rho^2 t is mixture variance over estimate variance here.
"""

import numpy as np

from engine.experiments.analysis.question import DEFAULT_LIFT_SCALE
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
    """What stands where 1.96 does in a fixed interval: float64 (...,), larger for any variance above 0."""
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
