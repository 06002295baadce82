"""The hourly job's part for new items: vectors from content, moved towards the users who turned to the items."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from engine.bundle.bundle import Bundle
from engine.catalog.changes import Change, VectorChange
from engine.catalog.content import to_frame
from engine.catalog.embed import ItemEmbedder
from engine.data.dataset import Dataset
from engine.features.history import Histories, HistoryStates
from engine.features.item_evidence import K_HALF, QueryMoments, folded_items, moved_vectors
from engine.features.user_counts import first_of_each
from engine.features.user_embedder import UserEmbedder
from engine.kernels.membership import rows_of_keys
from engine.publish.users import in_bundle_rows
from engine.training.config import AlsConfig
from engine.types import Float32Array, Int64Array, item_key, item_keys
from engine_client.v1 import catalog_pb2 as pb

# Of each new item the latest so many interactions speak; by then content has next to no say.
MAX_INTERACTIONS = 200
# Interactions whose query vectors stand for all.
SAMPLE_SIZE = 2_000


def new_items(bundle: Bundle, stored: Sequence[pb.StoredItem]) -> pl.DataFrame:
    """Canonical columns of the items that are in the overlay and not in the bundle."""
    items = [one.item for one in stored if not one.removed]
    keys = item_keys([item.item_id for item in items])
    rows = rows_of_keys(bundle.items.sorted_keys, bundle.items.sorted_rows, keys)
    return to_frame([item for item, row in zip(items, rows.tolist(), strict=True) if row < 0])


def moved_items(
    bundle: Bundle, dataset: Dataset, items: pl.DataFrame, embed_items: ItemEmbedder, embed_users: UserEmbedder
) -> list[Change]:
    """The vector of each new item that somebody turned to, for the catalogue overlay; none of the others.

    Args:
        dataset: whose items include the new ones.
        items: canonical columns of the new items.
        embed_items, embed_users: of the bundle.

    Cost: one pass of the user tower over MAX_INTERACTIONS moments an item and SAMPLE_SIZE more.
    """
    if not items.height:
        return []
    place = dict(zip(items["item_id"], range(items.height), strict=True))
    of_row = np.array([place.get(item_id, -1) for item_id in dataset.items["item_id"]], np.int64)
    events = dataset.interactions.positive()
    # Each user once an item, by how they came to it: one who keeps coming would be all that moves it.
    taken = first_of_each(events.users, events.rows)
    turned = taken[of_row[events.rows[taken]] >= 0]
    if not len(turned):
        return []
    turned = _latest_of_each(of_row[events.rows[turned]], turned)
    targets = of_row[events.rows[turned]]
    histories = in_bundle_rows(bundle, dataset.histories(), item_keys(dataset.items["item_id"].to_list()))
    codes = dataset.demographic_codes()

    def queries(chosen: Int64Array) -> Float32Array:
        """The query vectors of the users of these events, just before them."""
        states = _states_before(histories, events.users[chosen].astype(np.int64), events.timestamps_ms[chosen])
        return embed_users(histories, states, codes)

    content = embed_items(items)
    counts = np.bincount(targets, minlength=items.height)
    if bundle.manifest.embeddings == "als":
        als = AlsConfig.model_validate(bundle.manifest.training["als"])
        users = embed_users(histories, histories.latest(), codes)
        folded = folded_items(users, events.users[turned], targets, items.height, als.alpha, als.regularization)
        share = (counts / (counts + K_HALF)).astype(np.float32)[:, None]
        vectors = (1 - share) * content + share * folded
    else:
        of_users = queries(turned)
        sums = np.stack([np.bincount(targets, column, items.height) for column in of_users.T], axis=1).astype(
            np.float64
        )
        rng = np.random.default_rng(0)
        sample = np.sort(rng.choice(len(events), min(SAMPLE_SIZE, len(events)), replace=False))
        vectors = moved_vectors(content, sums, counts, QueryMoments.of(queries(sample)))
    return [
        VectorChange(item_key(items["item_id"][int(item)]), bundle.manifest.generation, vectors[item])
        for item in np.flatnonzero(counts)
    ]


def _latest_of_each(items: Int64Array, events: Int64Array) -> Int64Array:
    """Of n events in time order (int64 (n,)) the latest MAX_INTERACTIONS of each item, in time order."""
    order = np.argsort(items, kind="stable")
    ends = np.searchsorted(items[order], items[order], side="right")
    return np.sort(events[order[ends - np.arange(len(order)) <= MAX_INTERACTIONS]])


def _states_before(histories: Histories, users: Int64Array, moments_ms: Int64Array) -> HistoryStates:
    """What each user's history was strictly before a moment."""
    lengths = np.empty(len(users), np.int64)
    for position, (user, moment_ms) in enumerate(zip(users.tolist(), moments_ms.tolist(), strict=True)):
        own = histories.timestamps_ms[histories.offsets[user] : histories.offsets[user + 1]]
        lengths[position] = np.searchsorted(own, moment_ms)
    return HistoryStates(users, lengths)
