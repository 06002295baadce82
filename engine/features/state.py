"""What the feature store knows of one user: the published record, the recent session, and what they have seen."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from engine.types import Demographics, EventType, Float32Array, Int64Array, UInt8Array


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
