"""Stage: what business rules make of candidates and slates."""

from dataclasses import dataclass

import numpy as np

from engine.kernels.topk import top_k
from engine.rules.active import ActiveRules
from engine.stages.diversify import SlateConstraints
from engine.types import Candidates, Float32Array, Int64Array, ItemSource


def rescore(candidates: Candidates, rules: ActiveRules, demotions: Float32Array | None = None) -> Candidates:
    """The candidates with boosts, buries and demotions in their scores, best first. Ties keep their order.

    demotions: float32 (n,), further factors in (0, 1]; None for none.
    """
    factors = rules.factors(candidates.rows)
    if demotions is not None:
        factors = demotions if factors is None else (factors * demotions).astype(np.float32)
    if factors is None or (factors == 1.0).all():
        return candidates
    # Retrieval scores can be negative where ranking failed: there a boost must still raise.
    scores = np.where(candidates.scores >= 0, candidates.scores * factors, candidates.scores / factors)
    order = top_k(scores, len(scores))
    return Candidates(candidates.rows[order], scores[order], candidates.sources[order])


@dataclass(frozen=True, slots=True)
class Placed:
    """Candidates, pinned ones included, and the one at each position: fixed int64 (slate size,), -1 where free."""

    candidates: Candidates
    fixed: Int64Array


def place(candidates: Candidates, rules: ActiveRules, pinned_rows: Int64Array, slate_size: int) -> Placed:
    """Give pins and slots their positions; one that cannot be filled stays free.

    Args:
        pinned_rows: int64 (pins,), the row of each pin's item, -1 where there is none that may be shown.
    """
    fixed = np.full(slate_size, -1, np.int64)
    candidates = _pin(candidates, rules, pinned_rows, fixed)
    taken = set(fixed.tolist())
    for slot in rules.slots(candidates.rows):
        if slot.position > slate_size or fixed[slot.position - 1] >= 0:
            continue
        best = next((index for index in np.flatnonzero(slot.members).tolist() if index not in taken), None)
        if best is not None:
            fixed[slot.position - 1] = best
            taken.add(best)
    return Placed(candidates, fixed)


def _pin(candidates: Candidates, rules: ActiveRules, pinned_rows: Int64Array, fixed: Int64Array) -> Candidates:
    """The candidates with the pinned items among them or after them; writes their positions into `fixed`."""
    pins = [
        (pin.position, row)
        for pin, row in zip(rules.pins, pinned_rows.tolist(), strict=True)
        if row >= 0 and pin.position <= len(fixed)
    ]
    if not pins:
        return candidates
    rows = np.array([row for _, row in pins], np.int64)
    missing = rows[~np.isin(rows, candidates.rows)]
    lowest = candidates.scores.min() if len(candidates) else np.float32(0.0)
    appended = Candidates.of(missing, np.full(len(missing), lowest, np.float32), ItemSource.PINNED)
    joined = Candidates.concat([candidates, appended])
    index_of = {row: index for index, row in enumerate(joined.rows.tolist())}
    sources = joined.sources.copy()
    for position, row in pins:
        fixed[position - 1] = index_of[row]
        sources[index_of[row]] = ItemSource.PINNED
    return Candidates(joined.rows, joined.scores, sources)


def constraints(candidates: Candidates, rules: ActiveRules, fixed: Int64Array) -> SlateConstraints:
    """What the slate must look like: caps, minimum shares, and what is fixed."""
    caps, shares = rules.caps(candidates.rows), rules.min_shares(candidates.rows)
    none = SlateConstraints.none(len(candidates), len(fixed))
    return SlateConstraints(
        groups=np.stack([cap.codes for cap in caps]) if caps else none.groups,
        cap_limits=np.array([cap.limit for cap in caps], np.int64),
        cap_windows=np.array([cap.window or len(fixed) for cap in caps], np.int64),
        members=np.stack([share.members for share in shares]).astype(np.uint8) if shares else none.members,
        min_shares=np.array([share.share for share in shares], np.float64),
        fixed=fixed,
    )
