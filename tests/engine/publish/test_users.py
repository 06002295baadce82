import numpy as np
import polars as pl
import pytest

from engine.app.model import load_embedders
from engine.bundle.bundle import Bundle, open_bundle
from engine.data.build import build_dataset
from engine.data.tables import make_tables, read_tables
from engine.features.state import SeenItems, UserRecord
from engine.publish.users import user_batches
from engine.types import EventType, item_key, item_keys
from tests.conftest import Trained

Published = dict[str, tuple[UserRecord, SeenItems]]


@pytest.fixture(scope="module")
def bundle(trained: Trained) -> Bundle:
    return open_bundle(trained.bundles.current())


@pytest.fixture(scope="module")
def published(trained: Trained, bundle: Bundle) -> Published:
    batches = user_batches(bundle, trained.dataset, *load_embedders(bundle))
    return {user_id: (record, seen) for batch in batches for user_id, record, seen in batch}


def test_every_user_has_a_record_of_this_embedding_space(
    published: Published, trained: Trained, bundle: Bundle
) -> None:
    assert list(published) == trained.dataset.users["user_id"].to_list()
    for record, _ in published.values():
        assert record.generation == bundle.manifest.generation
        assert record.embedding.shape == (bundle.schema.embedding_dim,)
        assert record.collaborative.shape == (bundle.schema.collaborative_dim,)
        assert record.profile.shape == (len(bundle.schema.profile),)
        assert np.isfinite(np.concatenate([record.embedding, record.collaborative, record.profile])).all()


def test_counts_seen_items_and_demographics_are_those_of_the_tables(published: Published, trained: Trained) -> None:
    everything, events = trained.dataset.interactions, trained.dataset.interactions.positive()
    item_ids = trained.dataset.items["item_id"].to_list()
    for user, (record, seen) in enumerate(published.values()):
        own = events.select(events.users == user)
        assert record.interaction_count == len(own)
        assert record.purchase_count == (own.event_types == EventType.PURCHASE).sum()
        assert record.embedded_until_ms == own.timestamps_ms.max(initial=0)
        # Of each type the latest event on each item, impressions apart, in their order.
        met = everything.select((everything.users == user) & (everything.event_types != EventType.IMPRESSION))
        latest: dict[tuple[int, int], int] = {}
        for kind, row, time_ms in zip(met.event_types, met.rows, met.timestamps_ms, strict=True):
            latest[int(kind), item_key(item_ids[row])] = max(
                int(time_ms) // 1000, latest.get((int(kind), item_key(item_ids[row])), 0)
            )
        found = [*zip(seen.event_types.tolist(), seen.item_keys.tolist(), seen.times_s.tolist(), strict=True)]
        assert {(kind, key): time_s for kind, key, time_s in found} == latest
        assert len(found) == len(latest)
        order = [(kind, time_s) for kind, _, time_s in found]
        assert order == sorted(order)
        assert (record.demographics.age_group or None) == trained.dataset.users["age_group"][user]


def test_vectors_tell_users_apart(published: Published) -> None:
    active = np.stack([record.embedding for record, seen in published.values() if len(seen) >= 5])
    units = active / np.linalg.norm(active, axis=1, keepdims=True)
    assert (units @ units.T)[~np.eye(len(units), dtype=bool)].mean() < 0.95


def test_items_unknown_to_the_bundle_stay_seen_and_out_of_the_vectors(
    trained: Trained, bundle: Bundle, published: Published
) -> None:
    tables = read_tables(trained.data)
    user_id = next(name for name, (record, _) in published.items() if record.interaction_count >= 10)
    newest = pl.DataFrame({"item_id": ["brand-new"], "title": ["Brand new"]})
    click = pl.DataFrame(
        {"user_id": [user_id], "item_id": ["brand-new"], "event_type": ["click"], "timestamp_ms": [1_768_000_000_000]}
    )
    later = build_dataset(
        make_tables(
            pl.concat([tables.interactions, click], how="diagonal"),
            # In front: every row of the data differs from the bundle's.
            pl.concat([newest, tables.items], how="diagonal"),
            tables.users,
        )
    )
    batches = user_batches(bundle, later, *load_embedders(bundle))
    records = {name: (record, seen) for batch in batches for name, record, seen in batch}
    record, seen = records[user_id]
    assert item_keys(["brand-new"])[0] in seen.item_keys[seen.event_types == EventType.CLICK]
    np.testing.assert_allclose(record.embedding, published[user_id][0].embedding, rtol=1e-4, atol=1e-5)
    assert record.interaction_count == published[user_id][0].interaction_count
