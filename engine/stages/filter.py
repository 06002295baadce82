"""Stage: the last word on stock, seen items and rules, just before the answer leaves."""

import numpy as np

from engine.kernels.membership import test_rows
from engine.types import Candidates, UInt8Array


def keep_eligible(candidates: Candidates, eligible: UInt8Array) -> tuple[Candidates, int]:
    """The candidates whose bit is set, in their order, and how many were removed. Cost: O(candidates)."""
    keep = test_rows(eligible, candidates.rows)
    if keep.all():
        return candidates, 0
    kept = candidates.take(np.flatnonzero(keep))
    return kept, len(candidates) - len(kept)
