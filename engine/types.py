"""The nouns that every part shares: requests, user state, candidates and slates.

Arrays travel between stages, never per-item objects. A *row* (int64) is an item's position in one bundle and
never leaves the process; an *item key* (int64) is a stable hash of its id, for stores and archives; callers see
item ids (strings) only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final, NamedTuple

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
    """The road that served a request; mirrors the API's enum."""

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

    @property
    def unit_id(self) -> str:
        """Who this is to whatever decides by person: the user, or else the visit."""
        return self.user_id or self.session_id


@dataclass(frozen=True, slots=True)
class UserRecord:
    """What the hourly job precomputes for one user, in one embedding space.

    embedding: float32 (dim,), a query vector of the item index.
    collaborative: float32 (collaborative_dim,), the matrix-factorization vector, a ranker input.
    profile: float32 (profile_dim,), dense features named by the bundle's feature schema.
    embedded_until_ms: the latest event that the embedding has read; 0 where it has read none.
    """

    generation: int
    embedding: Float32Array
    collaborative: Float32Array
    profile: Float32Array
    interaction_count: int
    purchase_count: int
    demographics: Demographics
    embedded_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """A user's recent events, oldest first; three arrays of one length."""

    item_keys: Int64Array
    event_types: UInt8Array
    timestamps_ms: Int64Array

    @staticmethod
    def empty() -> "Session":
        return Session(np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class SeenItems:
    """What a user did with which items: the latest event of each type on each item; columns of one length.

    item_keys: int64 (n,). event_types: uint8 (n,). times_s: int64 (n,), Unix seconds. counts: float32 (n,), of an
    impression how many showings there were, decayed, as of that time; 1 for all else.
    """

    item_keys: Int64Array
    event_types: UInt8Array
    times_s: Int64Array
    counts: Float32Array

    def __len__(self) -> int:
        return len(self.item_keys)

    @property
    def nbytes(self) -> int:
        return self.item_keys.nbytes + self.event_types.nbytes + self.times_s.nbytes + self.counts.nbytes

    @staticmethod
    def of(item_keys: Int64Array, event_type: EventType, time_s: int) -> "SeenItems":
        """Events of one type at one moment, one on each item."""
        count = len(item_keys)
        kinds, times = np.full(count, event_type, np.uint8), np.full(count, time_s, np.int64)
        return SeenItems(item_keys, kinds, times, np.ones(count, np.float32))

    @staticmethod
    def none() -> "SeenItems":
        return _NOTHING_SEEN

    def joined(self, more: "SeenItems") -> "SeenItems":
        """These, then those: an item can be there twice with the same type."""
        if not len(more):
            return self
        if not len(self):
            return more
        return SeenItems(
            np.concatenate([self.item_keys, more.item_keys]),
            np.concatenate([self.event_types, more.event_types]),
            np.concatenate([self.times_s, more.times_s]),
            np.concatenate([self.counts, more.counts]),
        )


_NOTHING_SEEN: Final = SeenItems(
    np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.float32)
)


@dataclass(frozen=True, slots=True)
class UserState:
    """Everything that the feature store knows of one user; `record` is None where none has been published.

    seen: what was published, then what is live, so that an item may be there twice with one type.
    live_interaction_count: interactions that the stream processor has counted, 0 where it knows nothing.
    """

    record: UserRecord | None
    session: Session
    seen: SeenItems
    live_interaction_count: int = 0

    @property
    def interaction_count(self) -> int:
        """The better informed count: a record counts what training saw, the processor what has come since it began."""
        return max(self.record.interaction_count if self.record else 0, self.live_interaction_count)

    def at(self, time_ms: int, session_ttl_s: float) -> "UserState":
        """The state at a moment (Unix milliseconds): without a session that has ended by then."""
        times = self.session.timestamps_ms
        if not len(times) or time_ms - int(times[-1]) <= session_ttl_s * 1000.0:
            return self
        return replace(self, session=Session.empty())

    @staticmethod
    def unknown() -> "UserState":
        return UserState(None, Session.empty(), SeenItems.none())


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
    """One item's road; mirrors the API's message."""

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
