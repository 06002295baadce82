"""Stage: the last word on stock, seen items and rules, just before the answer leaves."""

import numpy as np

from engine.types import Candidates, UInt8Array
from kernels.membership import test_rows


def keep_eligible(candidates: Candidates, eligible: UInt8Array, eligible_now: UInt8Array) -> tuple[Candidates, int]:
    """The candidates that may still be shown, in their order, and how many were removed.

    eligible: the request's bitmap, without seen and excluded rows. eligible_now: the surface's bitmap as it is at
    this moment; stock may have changed while the request was under way.
    """
    keep = test_rows(eligible, candidates.rows) & test_rows(eligible_now, candidates.rows)
    if keep.all():
        return candidates, 0
    kept = candidates.take(np.flatnonzero(keep))
    return kept, len(candidates) - len(kept)
