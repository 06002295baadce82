"""Sample ratio mismatch: are there as many units in each variant as were planned?

When not, people went missing (or were added) in a way that depends on the variant: a crash, a redirect, a lossy log, a
bot filter. Then the variants are no longer alike in all but the treatment, and no statistics repair that.

Source: Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments", KDD 2019.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from engine.errors import InvalidRequest

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
        raise InvalidRequest("shares", f"say nothing of the variant {unknown[0]!r}, which people have seen")
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
