from pathlib import Path

import numpy as np
import polars as pl
import pytest

from engine.bundle.popularity import Popularity
from engine.data.build import build_dataset
from engine.data.dataset import Dataset
from engine.data.tables import make_tables
from engine.errors import BundleError
from engine.training.popular import build_popularity
from engine.types import Demographics

ITEMS = [f"i{row}" for row in range(30)]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Young users in X take the first ten items, old users in X the next ten, everyone on "cart" the last ten."""
    rng = np.random.default_rng(0)
    events, users = [], []
    for user in range(200):
        young = user % 2 == 0
        users.append((f"u{user}", "young" if young else "old", "X" if user < 180 else "Y", None))
        for _ in range(10):
            on_cart = rng.random() < 0.3
            item = (20 if on_cart else 0 if young else 10) + rng.integers(10)
            events.append((f"u{user}", ITEMS[item], "click", 1_700_000_000_000, "cart" if on_cart else "home"))
    columns = ["user_id", "item_id", "event_type", "timestamp_ms", "surface"]
    users = pl.DataFrame(users, ["user_id", "age_group", "location", "signup_source"], orient="row")
    return build_dataset(
        make_tables(
            pl.DataFrame(events, columns, orient="row"), pl.DataFrame({"item_id": ITEMS, "title": ITEMS}), users
        )
    )


@pytest.fixture(scope="module")
def popularity(dataset: Dataset) -> Popularity:
    return build_popularity(dataset)


def test_the_overall_order_holds_every_item_by_falling_count(dataset: Dataset, popularity: Popularity) -> None:
    users = np.unique(np.stack([dataset.interactions.users, dataset.interactions.rows]), axis=1)
    counts = np.bincount(users[1], minlength=30)
    assert sorted(popularity.overall.rows) == list(range(30))
    assert (np.diff(counts[popularity.overall.rows]) <= 0).all()
    assert (popularity.overall.scores > 0).all()
    assert popularity.overall.scores.sum() == pytest.approx(1.0, rel=1e-5)


def test_each_segment_likes_what_it_took(popularity: Popularity) -> None:
    for age, first in (("young", 0), ("old", 10)):
        segment = popularity.of_segment(Demographics(age_group=age, location="X"))
        assert segment is not None
        own = set(range(first, first + 10)) | set(range(20, 30))
        assert set(segment.rows[:20].tolist()) == own
    cart = popularity.of_surface("cart")
    assert cart is not None
    assert set(cart.rows[:10].tolist()) == set(range(20, 30))


def test_the_road_backs_off_to_the_finest_segment_that_is_known(popularity: Popularity) -> None:
    by_age = popularity.of_segment(Demographics(age_group="young"))
    assert popularity.of_segment(Demographics(age_group="young", location="unheard of")) is by_age
    assert popularity.of_segment(Demographics(age_group="unheard of")) is None
    assert popularity.of_segment(Demographics()) is None
    assert popularity.of_surface("unheard of") is None


def test_lists_survive_the_round_trip(tmp_path: Path, popularity: Popularity) -> None:
    popularity.write(tmp_path)
    back = Popularity.read(tmp_path, 30)
    assert back.lists.keys() == popularity.lists.keys()
    for key, entry in popularity.lists.items():
        np.testing.assert_array_equal(back.lists[key].rows, entry.rows)
        np.testing.assert_array_equal(back.lists[key].scores, entry.scores)
    np.testing.assert_array_equal(back.overall.rows, popularity.overall.rows)
    with pytest.raises(BundleError, match="30 rows where the catalogue has 31"):
        Popularity.read(tmp_path, 31)
