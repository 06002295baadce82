"""From a batch of the log to what Redis must hold of it: read, fold, write in one step, together with the position."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Protocol

from engine.stream.codec import Logged
from engine.stream.popularity import Scope, scopes_of
from engine.stream.processor import LogRecord, PositionLost
from engine.stream.state import (
    Limits,
    LiveState,
    StreamEvent,
    apply,
    clamped_ms,
    event_id_digest,
    is_positive,
    log_partition,
)
from engine.types import Demographics, item_key
from engine.v1 import event_pb2 as pb

log = logging.getLogger(__name__)

_OFFSET = attrgetter("offset")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the store holds: positions by partition (None: nothing of it), users' states, known demographics."""

    applied: dict[int, int | None]
    states: dict[str, LiveState]
    demographics: dict[str, Demographics]


@dataclass(frozen=True, slots=True)
class Changes:
    """What one batch changes; stored as a whole or not at all.

    popularity: by (partition, scope). applied: the last offset of each partition that is included.
    """

    applied: dict[int, int]
    states: dict[str, LiveState] = field(default_factory=dict)
    popularity: dict[tuple[int, str], Scope] = field(default_factory=dict)


class LiveStore(Protocol):
    """Where live states are kept. Every call may raise DependencyUnavailable."""

    def applied(self, partitions: Iterable[int]) -> dict[int, int | None]:
        """The last offset of each partition that is in the store."""
        ...

    def read(self, partitions: Iterable[int], user_ids: Iterable[str]) -> Snapshot:
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
        # Who hears of the users whose positive events have just been stored.
        self._touched = touched
        self._applied: dict[int, int | None] = {}
        # One writer a partition, so that these lists stay true while the partition is ours.
        self._scopes: dict[tuple[int, str], Scope] = {}

    def positions(self, partitions: Iterable[int]) -> dict[int, int | None]:
        """Where to go on: behind what the store holds; None from the beginning of the log."""
        self.forget()
        self._applied = self._store.applied(partitions)
        return {partition: None if last is None else last + 1 for partition, last in self._applied.items()}

    def forget(self) -> None:
        """Drop what is remembered of the store: another processor, or a restart, may have changed it."""
        self._applied = {}
        self._scopes = {}

    def write(self, records: Sequence[LogRecord[Logged]]) -> dict[int, int]:
        """Apply records in log order; returns where each partition goes on, now that this is stored.

        Without records it looks whether the store still holds what was written: one that has lost it, while nobody
        does anything, must not stay behind until somebody does.

        Raises:
            PositionLost: the store is not where this sink left it; nothing is written.
        """
        if not records:
            if self._store.applied(self._applied) != self._applied:
                raise PositionLost("the store has lost what was written, or another processor has written there")
            return {}
        ends = {record.partition: record.offset for record in records}
        events = [
            to_stream_event(record.partition, record.offset, record.event)
            for record in records
            if record.event is not None and record.event.fields.type != pb.EVENT_TYPE_IMPRESSION
        ]
        snapshot = self._store.read(ends, {event.user_id for event in events})
        for partition in ends:
            if snapshot.applied[partition] != self._applied.get(partition):
                raise PositionLost(f"partition {partition} is stored up to {snapshot.applied[partition]}")
        states, taken = self._fold(events, snapshot)
        touched = self._count(taken, snapshot.demographics)
        changes = Changes(ends, states, touched)
        if not self._store.write(changes):
            raise PositionLost("another processor writes the same partitions")
        for scope in touched.values():
            scope.stored()
        self._applied.update(ends)
        self._touched({event.user_id for event in taken if is_positive(event.event_type)})
        return {partition: last + 1 for partition, last in ends.items()}

    def flush(self) -> dict[int, int]:
        """Nothing waits: what was taken is stored."""
        return {}

    def _fold(
        self, events: Sequence[StreamEvent], snapshot: Snapshot
    ) -> tuple[dict[str, LiveState], list[StreamEvent]]:
        """The states that change, and the events that were taken, in log order within each partition."""
        by_user: dict[tuple[str, int], list[StreamEvent]] = {}
        for event in events:
            by_user.setdefault((event.user_id, event.partition), []).append(event)
        changed: dict[str, LiveState] = {}
        taken: list[StreamEvent] = []
        logs = {partition: log_partition(self._log, partition) for partition in snapshot.applied}
        for (user_id, partition), own in by_user.items():
            before = changed.get(user_id) or snapshot.states[user_id]
            after, new = apply(before, logs[partition], own, self._limits)
            if after is not before:
                changed[user_id] = after
            taken += new
        taken.sort(key=_OFFSET)
        return changed, taken

    def _count(
        self, taken: Sequence[StreamEvent], demographics: Mapping[str, Demographics]
    ) -> dict[tuple[int, str], Scope]:
        """Count positive events in every list that they belong to; returns the lists that changed."""
        unknown = Demographics()
        # Item keys and times of each list, in log order.
        placed: dict[tuple[int, str], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for event in taken:
            if is_positive(event.event_type):
                for scope in scopes_of(event.surface, demographics.get(event.user_id, unknown)):
                    item_keys, times_ms = placed[event.partition, scope]
                    item_keys.append(event.item_key)
                    times_ms.append(event.time_ms)
        missing = sorted(placed.keys() - self._scopes.keys())
        self._scopes |= zip(missing, self._store.read_scopes(missing), strict=True)
        for name, (item_keys, times_ms) in placed.items():
            self._scopes[name].count(item_keys, times_ms, self._popular_items)
        return {name: self._scopes[name] for name in placed}


def to_stream_event(partition: int, offset: int, logged: Logged) -> StreamEvent:
    """A logged event as the fold wants it."""
    event_id, user_id, kind, item_id, time_ms, surface = logged.fields
    return StreamEvent(
        partition,
        offset,
        user_id,
        event_id_digest(event_id),
        item_key(item_id),
        kind - 1,  # the API's codes leave 0 to "unspecified"
        clamped_ms(time_ms, logged.received_ms),
        surface,
    )
