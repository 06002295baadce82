"""Stage: what business rules make of candidates and slates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.stages.diversify import SlateConstraints
from engine.types import Candidates, Float32Array, Int64Array, ItemSource, UInt8Array
from kernels.topk import top_k


class ActiveRules(Protocol):
    """The rules that apply to one request."""

    @property
    def pins(self) -> Sequence["Pin"]:
        """Items that stand at fixed positions."""
        ...

    def restrict(self, bitmap: UInt8Array) -> None:
        """Clear what this request may not show; what no request may show is not in a surface's bitmap to begin with."""
        ...

    def factors(self, rows: Int64Array) -> Float32Array | None:
        """float32 (n,): what boosts and buries multiply the scores of rows by; None where no rule does."""
        ...

    def caps(self, rows: Int64Array) -> Sequence["Cap"]: ...

    def min_shares(self, rows: Int64Array) -> Sequence["MinShare"]: ...

    def slots(self, rows: Int64Array) -> Sequence["Slot"]: ...

    def restrictions(self) -> Sequence[tuple[str, UInt8Array]]:
        """For explanations: each rule that keeps items away, and the bitmap of what it lets through."""
        ...

    def touching(self, rows: Int64Array) -> list[tuple[str, ...]]:
        """For explanations: the names of the rules that bear on each row."""
        ...


class Pin(Protocol):
    name: str
    position: int
    item_id: str


class Cap(Protocol):
    name: str
    groups: npt.NDArray[np.int32]
    limit: int
    window: int


class MinShare(Protocol):
    name: str
    members: npt.NDArray[np.bool_]
    share: float


class Slot(Protocol):
    name: str
    position: int
    members: npt.NDArray[np.bool_]


def rescore(candidates: Candidates, rules: ActiveRules) -> Candidates:
    """The candidates with boosts and buries in their scores, best first. Ties keep their order."""
    factors = rules.factors(candidates.rows)
    if factors is None or not len(candidates):
        return candidates
    # Retrieval scores can be negative where ranking failed: there a boost must still raise.
    scores = np.where(candidates.scores >= 0, candidates.scores * factors, candidates.scores / factors)
    order = top_k(scores.astype(np.float32), len(scores))
    return Candidates(candidates.rows[order], scores[order].astype(np.float32), candidates.sources[order])


@dataclass(frozen=True, slots=True)
class Placed:
    """Candidates with the pinned ones among them, and who stands where: fixed int64 (slate size,), -1 where free."""

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
    """The candidates with the pinned items among them or behind them; writes their positions into `fixed`."""
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
    behind = Candidates.of(missing, np.full(len(missing), lowest, np.float32), ItemSource.PINNED)
    joined = Candidates.concat([candidates, behind])
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
        groups=np.stack([cap.groups for cap in caps]) if caps else none.groups,
        cap_limits=np.array([cap.limit for cap in caps], np.int64),
        cap_windows=np.array([cap.window for cap in caps], np.int64),
        members=np.stack([share.members for share in shares]).astype(np.uint8) if shares else none.members,
        min_shares=np.array([share.share for share in shares], np.float64),
        fixed=fixed,
    )
