"""How many cells a search visits, by the share of items that it chooses from."""

import math
from collections.abc import Sequence

import numpy as np


class Probes:
    """Calibrated cell counts, and what lies between them."""

    def __init__(self, nprobe: int, filtered_nprobe: Sequence[tuple[float, int]], cell_count: int) -> None:
        """nprobe: cells where everything is eligible; filtered_nprobe: (share, cells) for smaller shares."""
        calibrated = sorted([(1.0, nprobe), *filtered_nprobe])
        self._log_shares = np.log([share for share, _ in calibrated])
        self._log_nprobes = np.log([cells for _, cells in calibrated])
        self._cell_count = cell_count

    def at(self, share: float) -> int:
        """Cells to visit when this share, above 0, is eligible: between calibrated shares by interpolation of
        logarithms, below the smallest so that as many eligible items are seen as there."""
        log_share = math.log(share)
        log_nprobe = float(np.interp(log_share, self._log_shares, self._log_nprobes))
        log_nprobe += max(float(self._log_shares[0]) - log_share, 0.0)
        return min(math.ceil(math.exp(log_nprobe) - 1e-6), self._cell_count)
