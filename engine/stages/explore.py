"""Stage: a small, known chance for new items, of which no model can know what they are worth before they are seen."""

from dataclasses import dataclass

import numpy as np
import xxhash

from engine.types import Candidates, Float32Array, Int64Array, ItemSource, UInt8Array

# Where a page begins, it shows what is best.
_FIRST_POSITION = 1


@dataclass(frozen=True, slots=True)
class Exploration:
    """Which new items go where, and how likely that was.

    candidates: those given, with the explored ones among them or behind them. fixed: int64 (slate size,), the candidate
    that stands at each position, -1 where neither a rule nor chance has decided. ruled: the same of rules alone.
    expected: how many places go to new items in the mean. new_count: among how many items they are drawn.
    """

    candidates: Candidates
    fixed: Int64Array
    ruled: Int64Array
    expected: float = 0.0
    new_count: int = 0

    def propensities(self, sources: UInt8Array) -> Float32Array:
        """How likely it was, before chance had decided, that each item of the slate would be in it: float32 (m,).

        An explored item takes some place, and all behind it move: what is lost is the last of those that are there by
        merit, whichever place it was. So the items of merit are sure of theirs, but for the last few. Exact where
        merit is an order of its own; with diversity, the last of the slate may depend on what was explored before it.

        Args:
            sources: uint8 (m,), of the items in slate order; m may be less than the slate size.
        """
        if not self.expected:
            return np.ones(len(sources), np.float32)
        ruled = self.ruled[: len(sources)] >= 0
        explored = (sources == ItemSource.EXPLORATION) & ~ruled
        merit = ~ruled & ~explored
        sure = np.count_nonzero(self.ruled < 0) - int(np.ceil(self.expected))
        chances = np.ones(len(sources), np.float32)
        chances[merit & (np.cumsum(merit) > sure)] = 1.0 - self.expected % 1
        chances[explored] = self.expected / self.new_count
        return chances


def explore(
    candidates: Candidates,
    new_rows: Int64Array,
    fixed: Int64Array,
    share: float,
    seed: str,
) -> Exploration:
    """Put a few new items at free positions, both chosen evenly at random.

    In the mean, `share` of the slate's positions are given to new items, never the first one: with 50 items and a
    share of 0.01, one in every second answer. The same seed decides alike.

    Args:
        new_rows: int64 (n,), eligible new items; where there are none, nothing is explored.
        fixed: int64 (slate size,), the candidate that a rule has put at each position, -1 for none; not changed.
        share: in [0, 1].

    Cost: some 20 µs.
    """
    free = np.flatnonzero(fixed < 0)
    free = free[free >= _FIRST_POSITION]
    pinned = candidates.rows[fixed[fixed >= 0]]
    if len(pinned):
        new_rows = np.setdiff1d(new_rows, pinned, assume_unique=True)
    wanted = min(share * len(fixed), float(len(free)), float(len(new_rows)))
    if wanted <= 0:
        return Exploration(candidates, fixed, fixed)
    rng = np.random.default_rng(xxhash.xxh3_64_intdigest(seed.encode()))
    count = int(wanted) + int(rng.random() < wanted % 1)
    if count == 0:
        return Exploration(candidates, fixed, fixed, wanted, len(new_rows))
    rows = rng.choice(new_rows, count, replace=False)
    positions = rng.choice(free, count, replace=False)
    known = {row: index for index, row in enumerate(candidates.rows.tolist())}
    extra: list[int] = []
    sources, chosen = candidates.sources.copy(), fixed.copy()
    for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
        index = known.get(row)
        if index is None:
            index = len(candidates) + len(extra)
            extra.append(row)
        else:
            sources[index] = ItemSource.EXPLORATION
        chosen[position] = index
    behind = Candidates.of(np.array(extra, np.int64), _lowest(candidates.scores, len(extra)), ItemSource.EXPLORATION)
    marked = Candidates(candidates.rows, candidates.scores, sources)
    return Exploration(Candidates.concat([marked, behind]), chosen, fixed, wanted, len(new_rows))


def new_among(eligible: UInt8Array, new: UInt8Array, first_row: int) -> Int64Array:
    """The eligible new rows: int64 (n,).

    Args:
        eligible: bitmap of all rows. new: bitmap of the rows from first_row, which is a multiple of 8.
    """
    here = eligible[first_row // 8 : first_row // 8 + len(new)] & new
    return np.flatnonzero(np.unpackbits(here, bitorder="little")) + first_row


def _lowest(scores: Float32Array, count: int) -> Float32Array:
    """What an item counts that nothing is known of: as the last candidate."""
    return np.full(count, scores.min() if len(scores) else 0.0, np.float32)
