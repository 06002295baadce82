"""Records that are seconds old: the users just touched go through the user tower again, away from the log's own path.

What waits is bounded and may be lost: the hourly job does the rest.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from engine.bundle.bundle import Bundle
from engine.data.dataset import POSITIVE_EVENTS, demographic_codes
from engine.errors import EngineError
from engine.features.history import Histories
from engine.features.profile import ItemStats, profile_features
from engine.features.schema import DEMOGRAPHICS
from engine.features.state import Session, UserRecord
from engine.features.user_embedder import UserEmbedder
from engine.kernels.membership import rows_of_keys
from engine.types import Demographics, EventType

log = logging.getLogger(__name__)

_IDLE_S = 0.5


@dataclass(frozen=True, slots=True)
class Touched:
    """What is known of one user.

    published: the last events of the published history. session: the live ones. record: the published one, if any.
    """

    user_id: str
    published: Session
    session: Session
    interaction_count: int
    purchase_count: int
    record: UserRecord | None


@dataclass(frozen=True, slots=True)
class UserModel:
    """What computes records for one bundle.

    newcomers_only: its embedding describes a whole history, which is here only of users who have never been published.
    """

    bundle: Bundle
    embed: UserEmbedder
    fold_in: UserEmbedder
    newcomers_only: bool = False


class NearlineStore(Protocol):
    """Where users are read and nearline records are written. Every call may raise DependencyUnavailable."""

    def read_touched(self, user_ids: Sequence[str], generation: int) -> list[Touched]:
        """These users, but those of whom something cannot be read."""
        ...

    def write_nearline(self, records: Iterable[tuple[str, UserRecord]]) -> None:
        """Put records before the published ones for a while."""
        ...

    def drop_nearline(self, user_ids: Sequence[str], generation: int) -> None:
        """Let the published records of these users answer again."""
        ...


def joined(published: Session, live: Session) -> tuple[Session, Session]:
    """The positive events of both, in time order, each once; and those that are live alone.

    An archived event is published a while after it was live: the same item, type and moment is the same event.
    """
    known = set(zip(*(part.tolist() for part in _columns(published)), strict=True))
    new = np.fromiter(
        (
            event not in known and event[1] in POSITIVE_EVENTS
            for event in zip(*(part.tolist() for part in _columns(live)), strict=True)
        ),
        np.bool_,
        len(live.item_keys),
    )
    alone = Session(live.item_keys[new], live.event_types[new], live.timestamps_ms[new])
    keys, types, times = (np.concatenate(pair) for pair in zip(_columns(published), _columns(alone), strict=True))
    order = np.argsort(times, kind="stable")
    return Session(keys[order], types[order].astype(np.uint8), times[order]), alone


def nearline_records(touched: Sequence[Touched], model: UserModel) -> list[tuple[str, UserRecord]]:
    """The record of each user as of now.

    The tower reads no more than a user's last events, which are all here: the embedding is the one that publishing
    would compute. The matrix-factorization vector and the profile are of a whole history: they are computed again for
    users whose whole history is here, and kept as published for the others, whose last events would misrepresent it.

    Cost: as publishing has it, about 1 ms a user in the tower.
    """
    bundle = model.bundle
    events, alone = zip(*(joined(user.published, user.session) for user in touched), strict=True)
    users = np.repeat(np.arange(len(touched)), [len(one.item_keys) for one in events])
    keys, types, times = (np.concatenate([_columns(one)[part] for one in events]) for part in range(3))
    rows = rows_of_keys(bundle.items.sorted_keys, bundle.items.sorted_rows, keys)
    known = rows >= 0
    histories = Histories.build(users[known], rows[known], types[known], times[known], len(touched))
    states = histories.latest()
    demographics = [user.record.demographics if user.record else Demographics() for user in touched]
    codes = demographic_codes(
        pl.DataFrame(
            [(one.age_group, one.location, one.signup_source) for one in demographics],
            schema=list(DEMOGRAPHICS),
            orient="row",
        ),
        bundle.schema.vocabularies,
    )
    embeddings = model.embed(histories, states, codes)
    collaborative = model.fold_in(histories, states, codes)
    stats = ItemStats.from_tables(bundle.schema, bundle.item_table, bundle.item_dynamic)
    profiles = profile_features(histories, states, stats)
    until_ms = np.minimum(histories.last_times_ms(states), time.time_ns() // 1_000_000)
    lengths = histories.lengths()
    records = []
    for position, user in enumerate(touched):
        old, new = user.record, alone[position]
        whole = old is None or lengths[position] >= old.interaction_count + len(new.item_keys)
        purchases = int((new.event_types == EventType.PURCHASE).sum())
        records.append(
            (
                user.user_id,
                UserRecord(
                    generation=bundle.manifest.generation,
                    embedding=embeddings[position],
                    collaborative=collaborative[position] if whole or old is None else old.collaborative,
                    profile=profiles[position] if whole or old is None else old.profile,
                    interaction_count=max(
                        user.interaction_count, old.interaction_count + len(new.item_keys) if old else 0
                    ),
                    purchase_count=max(user.purchase_count, old.purchase_count + purchases if old else 0),
                    demographics=demographics[position],
                    embedded_until_ms=int(until_ms[position]),
                ),
            )
        )
    return records


class Refresher:
    """Computes nearline records in a thread of its own, at a bounded rate; `touch` may be called from any thread.

    Args:
        model: the current bundle's, or None where its records cannot be computed; asked before every batch.
        pending_limit: users that wait; past it those who have waited longest are left to the hourly job.
    """

    def __init__(
        self,
        store: NearlineStore,
        model: Callable[[], UserModel | None],
        users_per_s: float,
        batch: int,
        pending_limit: int,
        stop: threading.Event,
    ) -> None:
        self._store = store
        self._model = model
        self._users_per_s = users_per_s
        self._batch = batch
        self._pending_limit = pending_limit
        self._stop = stop
        self._pending: dict[str, None] = {}
        self._arrived = threading.Condition()

    def touch(self, user_ids: Iterable[str]) -> None:
        """These users' events have just been stored."""
        with self._arrived:
            self._pending |= dict.fromkeys(user_ids)
            while len(self._pending) > self._pending_limit:
                del self._pending[next(iter(self._pending))]
            self._arrived.notify()

    def run(self) -> None:
        """Refresh users until stopped."""
        while not self._stop.is_set():
            user_ids = self._take()
            if not user_ids:
                continue
            started = time.monotonic()
            try:
                model = self._model()
                if model is not None:
                    self._refresh(user_ids, model)
            except EngineError as error:
                log.warning("%d users keep their published records: %s", len(user_ids), error)
            self._stop.wait(len(user_ids) / self._users_per_s - (time.monotonic() - started))

    def _refresh(self, user_ids: Sequence[str], model: UserModel) -> None:
        generation = model.bundle.manifest.generation
        touched = self._store.read_touched(user_ids, generation)
        if model.newcomers_only:
            # What was folded in before the first publication knows less than what was published.
            published = [user.user_id for user in touched if user.record is not None]
            if published:
                self._store.drop_nearline(published, generation)
            touched = [user for user in touched if user.record is None]
        if touched:
            self._store.write_nearline(nearline_records(touched, model))

    def _take(self) -> list[str]:
        with self._arrived:
            if not self._pending:
                self._arrived.wait(_IDLE_S)
            taken = [user_id for user_id, _ in zip(self._pending, range(self._batch), strict=False)]
            for user_id in taken:
                del self._pending[user_id]
        return taken


def _columns(session: Session) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return session.item_keys, session.event_types, session.timestamps_ms
