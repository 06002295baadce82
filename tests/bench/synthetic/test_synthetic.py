"""The synthetic world: reproducible, plausible, and worth personalizing."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from engine.data.build import build_dataset
from engine.data.tables import Tables, read_tables
from engine.errors import ConfigError
from engine.types import EventType
from engine_bench.synthetic.events import EventColumns, simulate_events
from engine_bench.synthetic.tables import synthesize, tables_of
from engine_bench.synthetic.world import World, WorldSize

SIZE = WorldSize(items=1500, users=200, days=30, dim=32)
EVENTS = 30_000


@pytest.fixture(scope="module")
def world() -> World:
    return World(SIZE, seed=3)


@pytest.fixture(scope="module")
def events(world: World) -> EventColumns:
    return simulate_events(world, EVENTS)


@pytest.fixture(scope="module")
def tables(world: World, events: EventColumns) -> Tables:
    return tables_of(world, events)


def unit_rows(vectors: np.ndarray) -> bool:
    return bool(np.allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5))


def test_same_seed_same_tables_and_other_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        synthesize(tmp_path / name, SIZE, 2000, seed)
    first, again, other = (read_tables(tmp_path / name) for name in "abc")
    for table in ("interactions", "items", "users"):
        assert_frame_equal(getattr(first, table), getattr(again, table))
        assert not getattr(first, table).equals(getattr(other, table))


def test_items_do_not_depend_on_the_number_of_users(world: World) -> None:
    wider = World(WorldSize(SIZE.items, 7, SIZE.days, SIZE.dim), seed=3)
    np.testing.assert_array_equal(world.item_latents, wider.item_latents)
    np.testing.assert_array_equal(world.items.prices, wider.items.prices)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 3), st.integers(1, 300), st.integers(0, 100))
def test_any_size_makes_valid_tables(items: int, users: int, days: int, count: int, seed: int) -> None:
    world = World(WorldSize(items, users, days, dim=8), seed)
    tables = tables_of(world, simulate_events(world, count))
    dataset = build_dataset(tables)
    assert (dataset.item_count, dataset.user_count) == (items, users)
    assert count <= len(dataset.interactions) < count + 250


@pytest.mark.parametrize("size", [WorldSize(0, 1), WorldSize(1, 0), WorldSize(1, 1, days=0)])
def test_impossible_sizes_are_refused(tmp_path: Path, size: WorldSize) -> None:
    with pytest.raises(ConfigError, match="at least 1 is needed, found 0"):
        synthesize(tmp_path, size, 10)


def test_progress_reaches_the_number_asked_for(world: World) -> None:
    reports: list[int] = []
    simulate_events(world, 200_000, reports.append)
    assert len(reports) > 1
    assert reports == sorted(reports)
    assert 200_000 <= reports[-1] < 200_250


def test_latents_are_unit_float32_and_clustered(world: World) -> None:
    latents = world.item_latents
    assert latents.dtype == np.float32
    assert unit_rows(latents)
    similarity = latents @ latents.T
    same = world.items.subs[:, None] == world.items.subs[None, :]
    np.fill_diagonal(same, False)
    assert similarity[same].mean() > 0.5
    assert abs(similarity[~same].mean()) < 0.1


def test_events_lie_in_the_period_in_order_and_after_publication(world: World, events: EventColumns) -> None:
    assert np.all(np.diff(events.timestamps_ms) >= 0)
    assert events.timestamps_ms[0] >= SIZE.start_ms
    assert events.timestamps_ms[-1] < SIZE.end_ms
    assert np.all(world.items.published_ms[events.items] <= events.timestamps_ms)
    assert np.all(world.users.joined_ms[events.users] <= events.timestamps_ms)
    assert EVENTS <= len(events.users) < EVENTS + 250


def test_new_items_keep_appearing(world: World) -> None:
    published = world.items.published_ms
    during = (published >= SIZE.start_ms) & (published < SIZE.end_ms)
    assert 0.15 < during.mean() < 0.25
    assert published.max() < SIZE.end_ms


def test_tables_have_no_nulls_where_there_is_always_something_to_say(tables: Tables) -> None:
    always = {
        "interactions": ["user_id", "item_id", "event_type", "timestamp_ms", "device", "country", "session_id"],
        "items": ["title", "description", "category", "brand", "price", "published_ms", "in_stock", "attributes"],
        "users": ["user_id"],
    }
    for table, columns in always.items():
        assert getattr(tables, table).select(columns).null_count().sum_horizontal().item() == 0
    assert 0.9 < tables.items["in_stock"].mean() < 1.0
    assert tables.items["price"].min() > 0


def test_each_stage_of_the_funnel_follows_the_one_before(tables: Tables) -> None:
    steps = tables.interactions.with_columns(
        step=pl.col("event_type").replace_strict(
            {"impression": 0, "click": 1, "view": 1, "cart": 2, "purchase": 3}, return_dtype=pl.Int8
        )
    )
    first = steps.group_by("session_id", "item_id", "step").agg(first_ms=pl.col("timestamp_ms").min())
    for kind, before in (("click", 0), ("cart", 1), ("purchase", 2)):
        later = tables.interactions.filter(pl.col("event_type") == kind)
        joined = later.join(first.filter(pl.col("step") == before), on=["session_id", "item_id"], how="left")
        assert later.height > 50
        assert (joined["first_ms"] <= joined["timestamp_ms"]).all()
        assert joined["first_ms"].null_count() == 0
    counts = dict(tables.interactions["event_type"].value_counts().rows())
    assert counts["purchase"] < counts["cart"] < counts["click"] < counts["impression"]
    assert counts["cart"] < counts["view"] < counts["impression"]


def test_purchases_alone_carry_the_price_as_value(tables: Tables) -> None:
    bought = tables.interactions.join(tables.items.select("item_id", "price"), on="item_id")
    purchases = bought.filter(pl.col("event_type") == "purchase")
    assert (purchases["value"] == purchases["price"]).all()
    assert bought.filter(pl.col("event_type") != "purchase")["value"].null_count() == bought.height - purchases.height


def test_items_are_shown_where_they_may_be(tables: Tables) -> None:
    shown = tables.interactions.filter(pl.col("event_type") == "impression").join(tables.items, on="item_id")
    assert set(shown["surface"]) == {"home", "category", "cart", "email"}
    restricted = shown.filter(pl.col("surfaces").is_not_null())
    assert restricted.height > 50
    assert restricted["surfaces"].str.split("|").list.contains(restricted["surface"]).all()


def test_a_slate_has_no_item_twice(tables: Tables) -> None:
    shown = tables.interactions.filter(pl.col("event_type") == "impression")
    assert shown.select("session_id", "timestamp_ms", "item_id").is_duplicated().sum() == 0


def test_nobody_opens_an_item_twice_in_a_session(tables: Tables) -> None:
    opened = tables.interactions.filter(pl.col("event_type").is_in(["view", "click"]))
    assert opened.select("session_id", "item_id").is_duplicated().sum() == 0


def test_words_follow_the_category(tables: Tables) -> None:
    rows = tables.items.with_columns(kind=pl.col("attributes").str.extract("type:([^|]+)"))
    assert rows.group_by("kind").agg(pl.col("category").n_unique())["category"].max() == 1
    assert pl.select(rows["title"].str.to_lowercase().str.contains(rows["kind"], literal=True).all()).item()


def test_click_probability_falls_with_position_and_rises_with_affinity(world: World) -> None:
    rng = np.random.default_rng(0)
    users = np.arange(50)
    times = np.full(50, SIZE.end_ms)
    intents, _ = world.intents(users, times, rng)
    items = np.repeat(rng.integers(0, SIZE.items, 50)[:, None], 6, axis=1)
    chances = world.click_probability(users, items, intents, times, np.arange(6))
    assert chances.dtype == np.float32
    assert np.all((chances > 0) & (chances < 1))
    assert np.all(np.diff(chances, axis=1) < 0)
    towards = world.click_probability(users, items, world.item_latents[items[:, 0]], times, np.arange(6))
    away = world.click_probability(users, items, -world.item_latents[items[:, 0]], times, np.arange(6))
    assert np.all(towards > away)


def test_people_like_what_fits_their_taste(world: World, events: EventColumns) -> None:
    chosen = events.take(np.isin(events.event_types, (EventType.VIEW, EventType.CLICK)))
    tastes = world.users.tastes[chosen.users]
    fit = np.einsum("nd,nd->n", tastes, world.item_latents[chosen.items]).mean()
    strangers = np.einsum("nd,nd->n", np.roll(tastes, 7, axis=0), world.item_latents[chosen.items]).mean()
    assert fit > strangers + 0.2


def test_sessions_drift_the_last_item_tells_more_than_the_taste(world: World, events: EventColumns) -> None:
    chosen = events.take(np.isin(events.event_types, (EventType.VIEW, EventType.CLICK)))
    chosen = chosen.take(np.lexsort((chosen.timestamps_ms, chosen.sessions)))
    same = chosen.sessions[1:] == chosen.sessions[:-1]
    following = world.item_latents[chosen.items[1:][same]]
    last = world.item_latents[chosen.items[:-1][same]]
    taste = world.users.tastes[chosen.users[1:][same]]
    assert (following * last).sum(axis=1).mean() > (following * taste).sum(axis=1).mean() + 0.1


def test_demographics_tell_something_of_tastes(world: World) -> None:
    crowd = World(WorldSize(items=500, users=5000, dim=16), seed=5).users
    shares = np.stack([
        np.bincount(crowd.interest_subs[same_age].ravel(), minlength=120) / same_age.sum()
        for same_age in (crowd.age_groups == age for age in range(6))
    ])  # fmt: skip
    # Six samples of about 830 users and 4 interests each would differ by 0.006 or so by chance alone.
    assert shares.std(axis=0).mean() > 0.015
