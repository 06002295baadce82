"""Finding the highest rate that holds: doubling until one does not, then halving the interval."""

from dataclasses import dataclass, field


@dataclass
class RateSearch:
    """Says which rate to try next; whoever measures tells what came of it, of these rates and of any others.

    Where measurements contradict each other, a failure counts: the answer lies below the lowest rate that failed.

    Args:
        first: requests a second to begin with.
        ceiling: the highest rate to try: beyond it the generator itself would be measured.
        floor: below it there is nothing to find; the answer is then 0.
        precision: the search ends when what failed is at most this much above what held, as a share.
    """

    first: float
    ceiling: float
    floor: float = 1.0
    precision: float = 0.05
    _held: list[float] = field(default_factory=list)
    _failed: list[float] = field(default_factory=list)

    def tell(self, rate: float, held: bool) -> None:
        (self._held if held else self._failed).append(rate)

    @property
    def found(self) -> float:
        """The highest rate that held below all that failed; 0 where none did."""
        lowest_failed = min(self._failed, default=float("inf"))
        return max((rate for rate in self._held if rate < lowest_failed), default=0.0)

    @property
    def lowest_failed(self) -> float | None:
        """What ended the search; None where it was the ceiling, or has not come."""
        return min(self._failed, default=None)

    def next_rate(self) -> float | None:
        """The rate to measure now; None when the search is over. Cost: O(log(ceiling / floor)) rates in all."""
        found = self.found
        if not self._failed:
            if found >= self.ceiling:
                return None
            return min(2 * found if found else self.first, self.ceiling)
        failed = min(self._failed)
        if not found:
            # Nothing has held yet: look far below before the interval is known.
            return failed / 2 if failed / 2 >= self.floor else None
        return (found + failed) / 2 if failed > found * (1 + self.precision) else None
