"""The hourly job: every user's record computed from their history, in the vector space of one bundle."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.bundle.bundle import Bundle
from engine.data.dataset import Dataset, demographic_codes
from engine.features.history import Histories, HistoryStates
from engine.features.profile import ItemStats, profile_features
from engine.features.schema import DEMOGRAPHICS
from engine.features.state import SeenItems, Session, UserRecord
from engine.features.user_embedder import UserEmbedder
from engine.kernels.membership import rows_of_keys
from engine.logs import Progress
from engine.types import Demographics, EventType, Int64Array, item_keys

# Users a batch: enough to keep the tower and the pipeline busy, few enough to bound memory.
BATCH_USERS = 1024


class RecordPublisher(Protocol):
    """Where records go."""

    def publish(self, users: list[tuple[str, UserRecord, SeenItems]]) -> int:
        """Write (user id, record, seen items by type and time) triples; returns how many."""
        ...


def publish_users(
    bundle: Bundle,
    dataset: Dataset,
    embed: UserEmbedder,
    fold_in: UserEmbedder,
    publisher: RecordPublisher,
    progress: Progress | None = None,
) -> int:
    """Compute and write the record and the seen items of every user of a data set; returns how many.

    Items that the bundle does not have stay among the seen ones and out of the vectors. Cost: one batch through the
    embedders per BATCH_USERS users; publishing again overwrites with the same bytes.
    """
    done = 0
    for batch in user_batches(bundle, dataset, embed, fold_in):
        done += publisher.publish(batch)
        if progress is not None:
            progress(done, dataset.user_count, "publish users")
    return done


def user_batches(
    bundle: Bundle, dataset: Dataset, embed: UserEmbedder, fold_in: UserEmbedder
) -> Iterator[list[tuple[str, UserRecord, SeenItems]]]:
    """(user id, record, seen items by type and time) of every user, in batches."""
    keys = item_keys(dataset.items["item_id"].to_list())
    events = dataset.histories()
    histories = in_bundle_rows(bundle, events, keys)
    purchases = _count(events, events.event_types == EventType.PURCHASE)
    seen = SeenHistories.of(_attention(dataset), keys)
    codes = demographic_codes(dataset.users, bundle.schema.vocabularies)
    stats = ItemStats.from_tables(bundle.schema, bundle.item_table, bundle.item_dynamic)
    user_ids = dataset.users["user_id"].to_list()
    users = [Demographics(*(value or "" for value in row)) for row in dataset.users.select(*DEMOGRAPHICS).iter_rows()]
    latest = histories.latest()
    for start in range(0, dataset.user_count, BATCH_USERS):
        stop = min(start + BATCH_USERS, dataset.user_count)
        states = HistoryStates(latest.users[start:stop], latest.lengths[start:stop])
        embeddings = embed(histories, states, codes)
        collaborative = fold_in(histories, states, codes)
        profiles = profile_features(histories, states, stats)
        until_ms = np.minimum(histories.last_times_ms(states), time.time_ns() // 1_000_000)
        yield [
            (
                user_ids[user],
                UserRecord(
                    generation=bundle.manifest.generation,
                    embedding=embeddings[position],
                    collaborative=collaborative[position],
                    profile=profiles[position],
                    interaction_count=int(states.lengths[position]),
                    purchase_count=int(purchases[user]),
                    demographics=users[user],
                    embedded_until_ms=int(until_ms[position]),
                ),
                seen.of_user(user),
            )
            for position, user in enumerate(range(start, stop))
        ]


def recent_histories(dataset: Dataset, limit: int) -> Iterator[list[tuple[str, Session]]]:
    """(user id, last `limit` positive events) of every user, in batches: what nearline vectors start from.

    Without a limit there is nothing to start from, and nothing comes.
    """
    if not limit:
        return
    keys = item_keys(dataset.items["item_id"].to_list())
    histories = dataset.histories()
    user_ids = dataset.users["user_id"].to_list()
    for start in range(0, dataset.user_count, BATCH_USERS):
        batch = []
        for user in range(start, min(start + BATCH_USERS, dataset.user_count)):
            stop = int(histories.offsets[user + 1])
            last = slice(max(int(histories.offsets[user]), stop - limit), stop)
            events = Session(keys[histories.rows[last]], histories.event_types[last], histories.timestamps_ms[last])
            batch.append((user_ids[user], events))
        yield batch


def in_bundle_rows(bundle: Bundle, histories: Histories, keys: Int64Array) -> Histories:
    """The histories in rows of the bundle, without items that it does not have."""
    rows = rows_of_keys(bundle.items.sorted_keys, bundle.items.sorted_rows, keys)[histories.rows]
    known = rows >= 0
    offsets = np.concatenate([[0], np.cumsum(_count(histories, known))])
    return Histories(offsets, rows[known], histories.event_types[known], histories.timestamps_ms[known])


def _count(histories: Histories, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Int64Array:
    """int64 (users,): each user's events where the mask (events,) is true."""
    running = np.concatenate([[0], np.cumsum(mask)])
    counts: Int64Array = np.diff(running[histories.offsets])
    return counts


def _attention(dataset: Dataset) -> Histories:
    """All events but impressions: those that a seen policy can ask for."""
    events = dataset.interactions.select(dataset.interactions.event_types != EventType.IMPRESSION)
    return Histories.build(events.users, events.rows, events.event_types, events.timestamps_ms, dataset.user_count)


@dataclass(frozen=True, slots=True)
class SeenHistories:
    """Every user's latest event of each type on each item, by rising type and time, concatenated.

    offsets: int64 (users + 1,); user u's are [offsets[u], offsets[u + 1]) of `seen`.
    """

    offsets: Int64Array
    seen: SeenItems

    def of_user(self, user: int) -> SeenItems:
        own = slice(int(self.offsets[user]), int(self.offsets[user + 1]))
        seen = self.seen
        return SeenItems(seen.item_keys[own], seen.event_types[own], seen.times_s[own], seen.counts[own])

    @staticmethod
    def of(histories: Histories, keys: Int64Array) -> "SeenHistories":
        """keys: int64 (items,), of the histories' rows. Cost: O(n log n) for n events."""
        users = np.repeat(np.arange(histories.user_count), histories.lengths())
        by_item = np.lexsort((histories.timestamps_ms, histories.rows, histories.event_types, users))
        columns = users[by_item], histories.event_types[by_item], histories.rows[by_item]
        changes = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
        latest = by_item[np.append(changes, True)] if len(by_item) else by_item
        # Back into the histories' order first: so ties of time stay as the tables have them.
        latest = np.sort(latest)
        order = latest[np.lexsort((histories.timestamps_ms[latest], histories.event_types[latest], users[latest]))]
        return SeenHistories(
            np.concatenate([[0], np.cumsum(np.bincount(users[order], minlength=histories.user_count))]),
            SeenItems(
                keys[histories.rows[order]],
                histories.event_types[order],
                histories.timestamps_ms[order] // 1000,
                np.ones(len(order), np.float32),
            ),
        )
