import numpy as np
import polars as pl

from engine.training.ranker.item_table import build_item_table, item_popularity
from tests.engine.training.ranker.small import world

DAY_MS = 86_400_000


def test_columns_hold_what_their_names_say() -> None:
    dataset = world()
    rng = np.random.default_rng(0)
    vectors = rng.random((dataset.item_count, 3), dtype=np.float32)
    collaborative = rng.random((dataset.item_count, 2), dtype=np.float32)
    epoch_ms = 1_700_000_000_000
    table, columns = build_item_table(dataset, vectors, collaborative, epoch_ms)
    assert table.dtype == np.float32
    assert table.flags.c_contiguous
    assert max(stop for _, stop in columns.values()) == table.shape[1]
    np.testing.assert_array_equal(table[:, slice(*columns["embedding"])], vectors)
    np.testing.assert_array_equal(table[:, slice(*columns["collaborative"])], collaborative)
    np.testing.assert_allclose(
        table[:, columns["published_days"][0]], (dataset.items["published_ms"].to_numpy() - epoch_ms) / DAY_MS
    )
    np.testing.assert_allclose(
        table[:, columns["log_price"][0]], np.log1p(dataset.items["price"].to_numpy()), rtol=1e-6
    )


def test_unknown_values_hold_the_mean_and_say_so() -> None:
    dataset = world()
    known = pl.int_range(pl.len()) >= 10
    items = dataset.items.with_columns(pl.when(known).then("price"), published_ms=pl.lit(None, pl.Int64))
    dataset = type(dataset)(items, dataset.users, dataset.interactions, dataset.vocabularies)
    vectors = np.zeros((dataset.item_count, 2), np.float32)
    table, columns = build_item_table(dataset, vectors, vectors, epoch_ms=0)
    assert np.isfinite(table).all()
    log_price, missing = table[:, columns["log_price"][0]], table[:, columns["price_missing"][0]]
    np.testing.assert_array_equal(missing, np.arange(dataset.item_count) < 10)
    np.testing.assert_allclose(log_price[:10], log_price[10:].mean(), rtol=1e-5)
    assert table[:, columns["published_missing"][0]].all()
    assert not table[:, columns["published_days"][0]].any()


def test_popularity_counts_people_with_events_of_interest() -> None:
    dataset = world()
    pairs = np.unique(np.stack([dataset.interactions.users, dataset.interactions.rows]), axis=1)
    counts = np.bincount(pairs[1], minlength=dataset.item_count)
    after_all = int(dataset.interactions.timestamps_ms.max()) + 1
    np.testing.assert_allclose(item_popularity(dataset).table(after_all)[:, -1], np.log1p(counts), rtol=1e-6)
