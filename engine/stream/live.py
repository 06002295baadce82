"""From a batch of the log to what Redis must hold of it: read, fold, write in one step, together with the position."""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from engine.errors import PositionLost, RecordError
from engine.stream.events import EventBatch
from engine.stream.fold import MOVES_USER, fold
from engine.stream.log_identity import LogIdentity, LogNow, Place
from engine.stream.popularity import Scope, scope_of_surface, scopes_of
from engine.stream.state import Limits, unpack_state
from engine.types import Demographics, Int64Array

log = logging.getLogger(__name__)

_UNKNOWN = Demographics()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the store holds: places by partition (None: nothing of it), known demographics, and users' packed states
    in the order in which they were asked for (None: nothing of them).
    """

    applied: dict[int, Place | None]
    states: Sequence[bytes | None]
    demographics: dict[str, Demographics]


@dataclass(frozen=True, slots=True)
class Changes:
    """What one batch changes; stored as a whole or not at all.

    states: packed, by user. popularity: by (partition, scope). applied: the last offset of each partition that is
    included. log: which they are of; None leaves it unsaid.
    """

    applied: Mapping[int, int]
    states: dict[str, bytes] = field(default_factory=dict)
    popularity: dict[tuple[int, str], Scope] = field(default_factory=dict)
    log: LogIdentity | None = None


class LiveStore(Protocol):
    """Where live states are kept. Every call may raise DependencyUnavailable."""

    def applied(self, partitions: Iterable[int]) -> dict[int, Place | None]:
        """How far each partition is in the store, and of which log."""
        ...

    def read(self, partitions: Iterable[int], user_ids: Collection[str]) -> Snapshot:
        """Positions, states and demographics as of one moment, which the next `write` relies on."""
        ...

    def read_scopes(self, scopes: Sequence[tuple[int, str]]) -> list[Scope]:
        """The stored (partition, scope) lists, in their order; empty ones where nothing is stored."""
        ...

    def write(self, changes: Changes) -> bool:
        """Store everything; False, and nothing is stored, when a position of the last `read` has changed since."""
        ...


class LiveSink:
    """Keeps a LiveStore true to the log of events. Implements engine.stream.processor.Sink."""

    def __init__(
        self,
        store: LiveStore,
        log_name: str,
        limits: Limits,
        popular_items: int,
        touched: Callable[[Iterable[str]], None] = lambda user_ids: None,
    ) -> None:
        self._store = store
        self._log = log_name
        self._limits = limits
        self._popular_items = popular_items
        # Who hears of the users whose events of MOVES_USER have just been stored.
        self._touched = touched
        self._applied: dict[int, Place | None] = {}
        self._identity: LogIdentity | None = None
        # One writer a partition, so that these lists stay true while the partition is ours.
        self._scopes: dict[tuple[int, str], Scope] = {}

    def positions(self, partitions: Iterable[int], log: LogNow) -> dict[int, Place | None]:
        """How far the store is; what is written from now on is of this log."""
        self.forget()
        self._identity = log.identity
        self._applied = self._store.applied(partitions)
        return dict(self._applied)

    def forget(self) -> None:
        """Drop what is remembered of the store: another processor, or a restart, may have changed it."""
        self._applied = {}
        self._scopes = {}

    def write(self, batch: EventBatch) -> dict[int, int]:
        """Apply events in log order; returns where each partition goes on, now that this is stored.

        Without messages it checks whether the store still holds what was written. A store that has lost it is filled
        again even while no events come.

        Raises:
            PositionLost: the store is not where this sink left it; nothing is written.
        """
        if not batch.ends:
            if self._store.applied(self._applied) != self._applied:
                raise PositionLost("the store has lost what was written, or another processor has written there")
            return {}
        # Each user's position, in order of appearance.
        positions: dict[str, int] = {}
        users = np.array([positions.setdefault(user_id, len(positions)) for user_id in batch.user_ids], np.int64)
        user_ids = list(positions)
        snapshot = self._store.read(batch.ends, user_ids)
        for partition in batch.ends:
            if snapshot.applied[partition] != self._applied.get(partition):
                raise PositionLost(f"partition {partition} is not stored where this processor has left it")
        folded = fold(snapshot.states, users, self._incarnation, batch, self._limits)
        for user in folded.unreadable:
            _log_unreadable(user_ids[user], snapshot.states[user])
        moved = np.flatnonzero(folded.taken & MOVES_USER[batch.event_types])
        counted = self._count(batch, folded.moves, snapshot.demographics)
        states = {user_ids[user]: blob for user, blob in folded.states.items()}
        if not self._store.write(Changes(batch.ends, states, counted, self._identity)):
            raise PositionLost("another processor writes the same partitions")
        for scope in counted.values():
            scope.stored()
        self._applied |= {partition: Place(last + 1, self._identity) for partition, last in batch.ends.items()}
        self._touched({user_ids[user] for user in users[moved].tolist()})
        return {partition: last + 1 for partition, last in batch.ends.items()}

    @property
    def _incarnation(self) -> str:
        """What a user's own position is filed under: offsets of two logs never compare, whatever they are called."""
        return self._log if self._identity is None else f"{self._log}@{self._identity}"

    def flush(self) -> dict[int, int]:
        """Nothing waits: what was taken is stored."""
        return {}

    def _count(
        self, batch: EventBatch, moves: Int64Array, demographics: Mapping[str, Demographics]
    ) -> dict[tuple[int, str], Scope]:
        """Move the users of these events in every list that has them; returns the lists that changed.

        Args:
            moves: int64 (m, 4), in seconds, see engine.kernels.live_state.Folded.
        """
        moves_ms = np.where(moves < 0, -1, moves * 1000).T
        anywhere, on_surface = moves[:, 0] != moves[:, 1], moves[:, 2] != moves[:, 3]
        rows = np.flatnonzero(anywhere | on_surface)
        # Most events have the same few lists in common: told apart by what decides on those.
        alike: dict[tuple[int, str, Demographics | None], list[int]] = defaultdict(list)
        for row, partition in zip(rows.tolist(), batch.partitions[rows].tolist(), strict=True):
            alike[partition, batch.surfaces[row], demographics.get(batch.user_ids[row])].append(row)
        placed: dict[tuple[int, str], list[int]] = defaultdict(list)
        of_surface: dict[tuple[int, str], list[int]] = defaultdict(list)
        counts_anywhere, counts_there = anywhere.tolist(), on_surface.tolist()
        for (partition, surface, users), chosen in alike.items():
            counted = [row for row in chosen if counts_anywhere[row]]
            for scope in scopes_of(users or _UNKNOWN) if counted else ():
                placed[partition, scope] += counted
            counted = [row for row in chosen if counts_there[row]]
            if counted:
                of_surface[partition, scope_of_surface(surface)] += counted
        placed |= of_surface
        missing = sorted(placed.keys() - self._scopes.keys())
        self._scopes |= zip(missing, self._store.read_scopes(missing), strict=True)
        for name, chosen in placed.items():
            chosen.sort()  # in log order
            before_ms, after_ms = moves_ms[2:] if name in of_surface else moves_ms[:2]
            self._scopes[name].count(batch.item_keys[chosen], before_ms[chosen], after_ms[chosen], self._popular_items)
        return {name: self._scopes[name] for name in placed}


def _log_unreadable(user_id: str, blob: bytes | None) -> None:
    try:
        unpack_state(blob)
    except RecordError as error:
        log.error("the live state of user %r is started again: %s", user_id, error)
