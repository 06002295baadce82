"""How many users an experiment needs, and what it can find with those it has."""

import math
from collections.abc import Sequence

from scipy import stats

from engine.errors import InvalidRequest

DEFAULT_POWER = 0.8


def spread_of_share(share: float) -> float:
    """The relative spread over users of a yes or no that holds for this share of them: sqrt((1 - p) / p).

    Raises:
        InvalidRequest: not between 0 and 1.
    """
    if not 0.0 < share < 1.0:
        raise InvalidRequest("rate", f"must be between 0 and 1, got {share:g}")
    return math.sqrt((1.0 - share) / share)


def detectable_lift(
    spread: float, control_units: float, treatment_units: float, alpha: float, power: float = DEFAULT_POWER
) -> float:
    """The smallest true lift (0.05: 5% more) that a test of level alpha finds with this probability.

    Args:
        spread: of a unit's influence on the metric, relative to the metric: the standard error of the metric over one
            variant's n units, times sqrt(n), by its value. 1.2 for a ratio that varies by 120% from unit to unit.
        control_units, treatment_units: in each variant.

    Infinite without units. On the scale of the logarithm, as the report's intervals are.
    """
    if control_units <= 0 or treatment_units <= 0:
        return math.inf
    return math.expm1(_reach(alpha, power) * spread * math.sqrt(1.0 / control_units + 1.0 / treatment_units))


def units_needed(
    spread: float, lift: float, shares: Sequence[float], alpha: float, power: float = DEFAULT_POWER
) -> int:
    """Units of control and treatment together for a true lift to be found with this probability.

    Args:
        lift: relative, above -1 and not 0.
        shares: of control and treatment, in any proportion.

    Raises:
        InvalidRequest: a lift or share out of range.

    Source: the two-sample normal approximation; with equal shares, alpha 0.05 and power 0.8 it is the rule of
    16 sigma^2 / delta^2 units a variant, van Belle, "Statistical rules of thumb", 2008, chapter 2.
    """
    if lift <= -1.0 or lift == 0.0:
        raise InvalidRequest("lift", f"must be above -1 and not 0, got {lift:g}")
    if len(shares) != 2 or not all(share > 0 for share in shares):
        raise InvalidRequest("shares", "must be two, both above 0")
    control, treatment = (share / sum(shares) for share in shares)
    return math.ceil((_reach(alpha, power) * spread / math.log1p(lift)) ** 2 * (1.0 / control + 1.0 / treatment))


def _reach(alpha: float, power: float) -> float:
    """By how many standard errors a true effect must stand off to be found: 2.80 for 0.05 and 0.8."""
    if not 0.0 < power < 1.0:
        raise InvalidRequest("power", f"must be between 0 and 1, got {power:g}")
    return float(stats.norm.isf(alpha / 2.0) + stats.norm.ppf(power))
