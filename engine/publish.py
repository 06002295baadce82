"""The hourly job: every user's record computed from their history, in the vector space of one bundle."""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from engine.bundle.bundle import Bundle
from engine.data.dataset import Dataset, demographic_codes
from engine.features.history import Histories, HistoryStates
from engine.features.profile import ItemStats, profile_features
from engine.types import Demographics, EventType, Float32Array, Int64Array, Session, UserRecord, item_keys
from kernels.membership import rows_of_keys

# Users a batch: enough to keep the tower and the pipeline busy, few enough to bound memory.
BATCH_USERS = 1024


class UserEmbedder(Protocol):
    """Query vectors from histories whose rows are the bundle's."""

    def __call__(self, histories: Histories, states: HistoryStates, demographic_codes: Int64Array) -> Float32Array:
        """float32 (n, dim): one vector a state; demographic_codes is int64 (users, 3)."""
        ...


class RecordPublisher(Protocol):
    """Where records go."""

    def publish(self, users: list[tuple[str, UserRecord, Int64Array]]) -> int:
        """Write (user id, record, seen item keys oldest first) triples; returns how many."""
        ...


def publish_users(
    bundle: Bundle,
    dataset: Dataset,
    embed: UserEmbedder,
    fold_in: UserEmbedder,
    publisher: RecordPublisher,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Compute and write the record and the seen set of every user of a data set; returns how many.

    Items that the bundle does not have stay in the seen set and out of the vectors. Cost: one batch through the
    embedders per BATCH_USERS users; publishing again overwrites with the same bytes.
    """
    done = 0
    for batch in user_batches(bundle, dataset, embed, fold_in):
        done += publisher.publish(batch)
        if progress is not None:
            progress(done, dataset.user_count)
    return done


def user_batches(
    bundle: Bundle, dataset: Dataset, embed: UserEmbedder, fold_in: UserEmbedder
) -> Iterator[list[tuple[str, UserRecord, Int64Array]]]:
    """(user id, record, seen item keys) of every user, in batches."""
    keys = item_keys(dataset.items["item_id"].to_list())
    seen = dataset.histories()
    histories = in_bundle_rows(bundle, seen, keys)
    purchases = _count(seen, seen.event_types == EventType.PURCHASE)
    codes = demographic_codes(dataset.users, bundle.schema.vocabularies)
    stats = ItemStats.from_tables(bundle.schema, bundle.item_table, bundle.item_dynamic)
    user_ids = dataset.users["user_id"].to_list()
    people = [
        Demographics(*(value or "" for value in row))
        for row in dataset.users.select("age_group", "location", "signup_source").iter_rows()
    ]
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
                    demographics=people[user],
                    embedded_until_ms=int(until_ms[position]),
                ),
                _distinct_recent_last(keys[seen.rows[seen.offsets[user] : seen.offsets[user + 1]]]),
            )
            for position, user in enumerate(range(start, stop))
        ]


def recent_histories(dataset: Dataset, limit: int) -> Iterator[list[tuple[str, Session]]]:
    """(user id, last `limit` positive events) of every user, in batches: what fresh vectors start from.

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


def _distinct_recent_last(keys: Int64Array) -> Int64Array:
    """Each key once, in the order of its latest occurrence."""
    _, from_end = np.unique(keys[::-1], return_index=True)
    return keys[::-1][np.sort(from_end)][::-1]
