"""The hourly job moves the vectors of new items, from the archive of events through Redis to what is searched."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from engine.adapters.redis.catalog import RedisCatalogSource, RedisCatalogWriter
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.app.model import load_model
from engine.app.publish import publish_once
from engine.bundle.store import BundleStore
from engine.catalog.changes import ContentChange, Overlay, VectorChange
from engine.config.serving import EngineConfig
from engine.stream.archive import ARCHIVE_SCHEMA
from engine.types import item_key, item_keys
from tests.conftest import Trained
from tests.engine.catalog.items import upsert


def archive(home: Path, users: list[str], item: str, start_ms: int) -> None:
    """As `engine process` would have archived these users' clicks on the item."""
    rows = [
        {"user_id": user, "item_id": item, "event_type": "click", "timestamp_ms": start_ms + place,
         "event_id": f"e{place}", "received_ms": start_ms, "partition": 0, "offset": place}
        for place, user in enumerate(users)
    ]  # fmt: skip
    (home / "events").mkdir()
    pl.DataFrame(rows, schema=ARCHIVE_SCHEMA).write_parquet(home / "events" / "part.parquet")


@pytest.mark.parametrize("embeddings", ["two-tower", "als"])
def test_a_new_item_moves_towards_those_who_turned_to_it(
    trained: Trained, factorized: BundleStore, tmp_path: Path, embeddings: str
) -> None:
    data = shutil.copytree(trained.data, tmp_path / "data")
    bundles = factorized if embeddings == "als" else trained.bundles
    lengths = trained.dataset.histories().lengths()
    active = [trained.dataset.users["user_id"][int(user)] for user in np.argsort(-lengths)[:40]]
    archive(data, active, "new", int(trained.dataset.interactions.timestamps_ms.max()) + 1000)
    content = [upsert("new"), upsert("untouched")]
    with EmbeddedRedis(tmp_path / "redis") as redis:
        config = EngineConfig.load(redis={"url": redis.url}, bundle={"directory": bundles.directory})

        async def write() -> None:
            writer = RedisCatalogWriter(redis.url, config.redis)
            await writer.write(content)
            await writer.close()

        asyncio.run(write())
        assert publish_once(data, config) == trained.dataset.user_count
        model = load_model(bundles.current(), config)
        changes = RedisCatalogSource(redis.url, config.redis).snapshot([model.bundle.manifest.generation])
        again = publish_once(data, config)
        repeated = RedisCatalogSource(redis.url, config.redis).snapshot([model.bundle.manifest.generation])
    assert again == trained.dataset.user_count
    moved = {change.key: change.vector for change in changes if isinstance(change, VectorChange)}
    assert set(moved) == {item_key("new")}
    np.testing.assert_array_equal(
        moved[item_key("new")], next(change.vector for change in repeated if isinstance(change, VectorChange))
    )
    catalogue = model.catalogue
    overlay = Overlay()
    overlay.add(change for change in changes if isinstance(change, ContentChange))
    catalogue.apply(overlay.since(0), overlay.sequence)
    row, other = catalogue.rows(item_keys(["new", "untouched"]))
    before = catalogue.item_vectors[row].copy()
    overlay.add(changes)
    catalogue.apply(overlay.since(catalogue.sequence), overlay.sequence)
    after = catalogue.item_vectors[row]
    np.testing.assert_array_equal(after, moved[item_key("new")])
    assert not np.allclose(before, after)
    # Those who clicked it find it nearer than its content alone would bring it, measured against all users.
    from engine.app.model import load_embedders

    embed, _ = load_embedders(model.bundle)
    histories = trained.dataset.histories()
    queries = embed(histories, histories.latest(), trained.dataset.demographic_codes())
    fans = np.isin(trained.dataset.users["user_id"].to_list(), active)

    def preference(vector: np.ndarray) -> float:
        scores = queries @ vector
        return float((scores[fans].mean() - scores[~fans].mean()) / scores.std())

    assert preference(after) > preference(before)
    assert other > row
