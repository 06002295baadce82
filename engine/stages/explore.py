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
    that stands at each position, -1 where chance has not decided. propensity: of an explored item, the chance that
    this very item was explored; of any other, that its place was not given away.
    """

    candidates: Candidates
    fixed: Int64Array
    propensity: float
    kept_propensity: float


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
        return Exploration(candidates, fixed, 1.0, 1.0)
    rng = np.random.default_rng(xxhash.xxh3_64_intdigest(seed.encode()))
    count = int(wanted) + int(rng.random() < wanted % 1)
    propensity, kept = wanted / len(new_rows), 1.0 - wanted / len(free)
    if count == 0:
        return Exploration(candidates, fixed, propensity, kept)
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
    return Exploration(Candidates.concat([marked, behind]), chosen, propensity, kept)


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
