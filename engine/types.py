"""The nouns that every part shares: requests, user state, candidates and slates.

Arrays travel between stages, never per-item objects. A *row* (int64) is an item's position in one bundle and
never leaves the process; an *item key* (int64) is a stable hash of its id, for stores and archives; callers see
item ids (strings) only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from engine.kernels.arrays import BoolArray as BoolArray
from engine.kernels.arrays import Float32Array as Float32Array
from engine.kernels.arrays import Float64Array as Float64Array
from engine.kernels.arrays import Int16Array as Int16Array
from engine.kernels.arrays import Int32Array as Int32Array
from engine.kernels.arrays import Int64Array as Int64Array
from engine.kernels.arrays import UInt8Array as UInt8Array
from engine.kernels.arrays import UInt64Array as UInt64Array
from engine_client.types import Demographics as Demographics
from engine_client.types import Priority as Priority


class EventType(IntEnum):
    """What a user did with an item; the codes are stored, so that they never change meaning."""

    IMPRESSION = 0
    VIEW = 1
    CLICK = 2
    CART = 3
    PURCHASE = 4
    DWELL = 5
    RETURN = 6


def event_name(event_type: int) -> str:
    """What settings and explanations call a type, e.g. "purchase"."""
    return EventType(event_type).name.lower()


class Strategy(IntEnum):
    """The strategy that served a request; mirrors the API's enum."""

    PERSONALIZED = 1
    DEMOGRAPHIC = 2
    POPULARITY = 3


class ItemSource(IntEnum):
    """Where one item came from; mirrors the API's enum."""

    RETRIEVAL = 1
    SEGMENT_POPULARITY = 2
    SURFACE_POPULARITY = 3
    GLOBAL_POPULARITY = 4
    BACKFILL = 5
    SESSION = 6
    EXPLORATION = 7
    PINNED = 8
    LET_BACK_IN = 9


class DegradedReason(IntEnum):
    """What was replaced by a fallback; mirrors the API's enum."""

    FEATURES_STALE = 1
    FEATURES_UNAVAILABLE = 2
    RETRIEVAL_FAILED = 3
    RETRIEVAL_SKIPPED = 4
    RANKING_FAILED = 5
    RANKING_SKIPPED = 6
    DIVERSITY_FAILED = 7
    DIVERSITY_SKIPPED = 8
    VARIANT_BUNDLE_UNAVAILABLE = 9
    BUDGET_EXHAUSTED = 10
    EFFORT_REDUCED = 11


def item_key(item_id: str) -> int:
    """Stable signed 64-bit hash of an item id (XXH3), the item's name in Redis and in archives."""
    unsigned = xxhash.xxh3_64_intdigest(item_id.encode())
    return unsigned - (1 << 64) if unsigned >= (1 << 63) else unsigned


def item_keys(item_ids: Sequence[str]) -> Int64Array:
    """int64 (n,) keys of n item ids, in their order."""
    return np.fromiter((item_key(item_id) for item_id in item_ids), dtype=np.int64, count=len(item_ids))


@dataclass(frozen=True, slots=True)
class RecommendQuery:
    """One validated request, free of transport.

    user_id: empty for a visitor who is known by session_id alone. experiment_overrides: (experiment, variant) pairs.
    priority: None for the surface's own. effort: in [0, 1], the share of the candidates that an overloaded server looks
    at; 0 asks for popularity alone.
    """

    user_id: str
    surface: str
    item_count: int
    time_ms: int
    device: str = ""
    country: str = ""
    demographics: Demographics = field(default_factory=Demographics)
    exclude_item_ids: tuple[str, ...] = ()
    diversity_weight: float | None = None
    request_id: str = ""
    debug: bool = False
    session_id: str = ""
    experiment_overrides: tuple[tuple[str, str], ...] = ()
    priority: Priority | None = None
    effort: float = 1.0

    @property
    def unit_id(self) -> str:
        """Who this is to whatever decides by user: the user, or else the visit."""
        return self.user_id or self.session_id


@dataclass(frozen=True, slots=True)
class Candidates:
    """Items under consideration, best first; three arrays of one length, rows unique.

    rows: int64 (n,). scores: float32 (n,), higher is better. sources: uint8 (n,), ItemSource codes.
    """

    rows: Int64Array
    scores: Float32Array
    sources: UInt8Array

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: npt.NDArray[np.integer]) -> "Candidates":
        """The candidates at these positions, in this order."""
        return Candidates(self.rows[positions], self.scores[positions], self.sources[positions])

    def head(self, count: int) -> "Candidates":
        return Candidates(self.rows[:count], self.scores[:count], self.sources[:count])

    @staticmethod
    def of(rows: Int64Array, scores: Float32Array, source: ItemSource) -> "Candidates":
        return Candidates(rows, scores, np.full(len(rows), source, np.uint8))

    @staticmethod
    def concat(parts: "Sequence[Candidates]") -> "Candidates":
        return Candidates(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.sources for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class RankingContext:
    """The request's half of the ranker's input, assembled once a request.

    query: float32 (dim,), the vector that retrieval searched with.
    session: float32 (dim,), the recent session in the same space, zeros where there is none.
    collaborative: float32 (collaborative_dim,). dense: float32 (dense_dim,), profile then context features.
    codes: int64 (code_count,), one vocabulary position per categorical feature, 0 for unknown.
    """

    query: Float32Array
    session: Float32Array
    collaborative: Float32Array
    dense: Float32Array
    codes: Int64Array


class StageTiming(NamedTuple):
    """Wall time of one stage of one request."""

    stage: str
    duration_ms: float


@dataclass(frozen=True, slots=True)
class ItemExplanation:
    """How one item got its place; mirrors the API's message."""

    retrieval_score: float | None
    rank_score: float | None
    rule_factor: float
    rules: tuple[str, ...]
    diversity_penalty: float
    relaxed: tuple[str, ...]
    seen_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of each item of the slate, in step; how many items could not be shown, by reason; and what the seen policy has
    done to how many, by (action, event type).
    """

    items: tuple[ItemExplanation, ...]
    removed: tuple[tuple[str, int], ...]
    seen: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ExperimentAssignment:
    """The variant that answered, of one experiment; overridden: the request asked for it."""

    experiment: str
    variant: str
    overridden: bool = False


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer.

    slate: the items in order, as rows of the bundle that answered. item_ids: their ids, in step. propensities: float32,
    in step, how likely each was to be shown, given what chance decided. explanation: where debug was asked for.
    let_back_in: by item id, the type of the event for which the seen policy would have kept the item away.
    """

    slate: Candidates
    item_ids: tuple[str, ...]
    propensities: Float32Array
    strategy: Strategy
    bundle_version: str
    degraded_reasons: tuple[DegradedReason, ...]
    timings: tuple[StageTiming, ...]
    candidate_count: int
    known_user: bool
    interaction_count: int
    explanation: Explanation | None = None
    experiments: tuple[ExperimentAssignment, ...] = ()
    let_back_in: Mapping[str, str] = field(default_factory=dict)
