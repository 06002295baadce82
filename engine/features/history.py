"""What users did, in order: the state that user vectors and profiles are computed from, in training and in serving."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.types import BoolArray, Float32Array, Int64Array, UInt8Array


@dataclass(frozen=True, slots=True)
class Histories:
    """Every user's events in time order, concatenated (CSR).

    offsets: int64 (users + 1,); user u's events are [offsets[u], offsets[u + 1]).
    rows: int64 (n,), item rows. event_types: uint8 (n,). timestamps_ms: int64 (n,).
    """

    offsets: Int64Array
    rows: Int64Array
    event_types: UInt8Array
    timestamps_ms: Int64Array

    @property
    def user_count(self) -> int:
        return len(self.offsets) - 1

    def lengths(self) -> Int64Array:
        """int64 (users,): events of each user."""
        return np.diff(self.offsets)

    @staticmethod
    def build(
        users: npt.NDArray[np.integer],
        rows: npt.NDArray[np.integer],
        event_types: UInt8Array,
        timestamps_ms: Int64Array,
        user_count: int,
    ) -> "Histories":
        """Group n events by user (int, 0-based), each user's in time order; ties keep their input order."""
        order = np.lexsort((np.arange(len(users)), timestamps_ms, users))
        offsets = np.zeros(user_count + 1, np.int64)
        np.cumsum(np.bincount(users, minlength=user_count), out=offsets[1:])
        return Histories(
            offsets, rows[order].astype(np.int64), event_types[order].astype(np.uint8), timestamps_ms[order]
        )

    def first_events(self) -> BoolArray:
        """bool (n,): whether an event is its user's first on its item. Cost: O(n log n)."""
        users = np.repeat(np.arange(self.user_count), self.lengths())
        order = np.lexsort((np.arange(len(users)), self.rows, users))
        repeats = (users[order[1:]] == users[order[:-1]]) & (self.rows[order[1:]] == self.rows[order[:-1]])
        first = np.ones(len(users), np.bool_)
        first[order[1:]] = ~repeats
        return first

    def last_times_ms(self, states: "HistoryStates") -> Int64Array:
        """int64 (n,): when the latest event of each state happened, 0 where it has none."""
        times = np.zeros(len(states), np.int64)
        has_events = states.lengths > 0
        ends = self.offsets[states.users] + states.lengths
        times[has_events] = self.timestamps_ms[ends[has_events] - 1]
        return times

    def latest(self) -> "HistoryStates":
        """Every user's whole history, user by user."""
        return HistoryStates(np.arange(self.user_count), self.lengths())


@dataclass(frozen=True, slots=True)
class HistoryStates:
    """Moments in histories: state i is user `users[i]` after their first `lengths[i]` events.

    users, lengths: int64 (n,).
    """

    users: Int64Array
    lengths: Int64Array

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, slots=True)
class HistoryWindow:
    """The last `window` events of n states, right-aligned and padded on the left.

    rows: int64 (n, window), -1 where padded. event_types: int64 (n, window), 0 where padded.
    ages_s: float32 (n, window), seconds between the event and the state's last event, 0 where padded.
    """

    rows: Int64Array
    event_types: Int64Array
    ages_s: Float32Array


def window_of(histories: Histories, states: HistoryStates, window: int) -> HistoryWindow:
    """Gather the last `window` events of each state."""
    ends = histories.offsets[states.users] + states.lengths
    positions = ends[:, None] + np.arange(-window, 0)[None, :]
    valid = positions >= histories.offsets[states.users][:, None]
    if len(histories.rows) == 0:
        shape = (len(states), window)
        return HistoryWindow(np.full(shape, -1), np.zeros(shape, np.int64), np.zeros(shape, np.float32))
    safe = np.where(valid, positions, 0)
    last = histories.timestamps_ms[np.maximum(ends - 1, 0)]
    ages_ms = last[:, None] - histories.timestamps_ms[safe]
    return HistoryWindow(
        np.where(valid, histories.rows[safe], -1),
        np.where(valid, histories.event_types[safe], 0).astype(np.int64),
        np.where(valid, ages_ms / 1000.0, 0.0).astype(np.float32),
    )
