"""One user moves what is popular by one at most, whatever they do; case 05-one-user-makes-a-bestseller."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.build import build_dataset
from engine.data.dataset import Dataset
from engine.data.tables import make_tables
from engine.features.popularity import PopularityTimeline
from engine.training.popular import OVERALL_STRENGTH, build_popularity
from engine.types import EventType

HOUR_MS = 3_600_000
NOW_MS = 1_764_000_000_000
ITEMS = pl.DataFrame({"item_id": [f"i{row}" for row in range(40)], "title": "t"})
KINDS = [kind.name.lower() for kind in EventType]
moments = st.integers(NOW_MS - 60 * 24 * HOUR_MS, NOW_MS)
acts = st.lists(st.tuples(st.sampled_from(KINDS), moments, st.sampled_from(["home", "cart", None])), max_size=60)


def dataset(acts: list[tuple[str, int, str | None]]) -> Dataset:
    """A hundred users on forty items, and then what one of them does besides with the item i30."""
    rng = np.random.default_rng(0)
    others = [(f"u{rng.integers(100)}", f"i{min(39, rng.geometric(0.1))}", "click", NOW_MS - 1000 * k, "home")
              for k in range(600)]  # fmt: skip
    own = [("u5", "i30", kind, moment, surface) for kind, moment, surface in acts]
    columns = ["user_id", "item_id", "event_type", "timestamp_ms", "surface"]
    users = pl.DataFrame({"user_id": [f"u{k}" for k in range(100)], "age_group": ["old", "young"] * 50})
    return build_dataset(make_tables(pl.DataFrame(others + own, columns, orient="row"), ITEMS, users))


@settings(deadline=None, max_examples=40)
@given(acts, st.integers(0, 40 * 24))
def test_whatever_one_person_does_moves_a_count_by_one_at_most(
    acts: list[tuple[str, int, str | None]], hours: int
) -> None:
    counts = []
    for data in (dataset([]), dataset(acts)):
        events = data.interactions.positive()
        timeline = PopularityTimeline.build(events.users, events.rows, events.timestamps_ms, data.item_count)
        counts.append(np.expm1(timeline.table(NOW_MS + hours * HOUR_MS).astype(np.float64)))
    moved = np.abs(counts[1] - counts[0])
    assert moved[30].max() <= 1 + 1e-4
    assert not np.delete(moved, 30, axis=0).any()


@settings(deadline=None, max_examples=25)
@given(acts)
def test_whatever_one_person_does_moves_a_share_by_one_interaction_at_most(
    acts: list[tuple[str, int, str | None]],
) -> None:
    without, having = dataset([]), dataset(acts)
    pairs = len(np.unique(np.stack([without.interactions.users, without.interactions.rows]), axis=1).T)
    before, after = (build_popularity(data).overall for data in (without, having))
    share = [float(order.scores[order.rows == 30][0]) for order in (before, after)]
    assert share[1] - share[0] <= 1.001 / (pairs + OVERALL_STRENGTH)


def test_two_thousand_clicks_are_one_in_every_list() -> None:
    """What a bot does over two months moves no list of the bundle further than its first click."""
    once = build_popularity(dataset([("click", NOW_MS, "home")]))
    often = build_popularity(dataset([("click", NOW_MS - k * HOUR_MS, "home") for k in range(1500)]))
    assert once.lists.keys() == often.lists.keys()
    assert any("age_group" in name for name in often.lists)
    assert any("surface" in name for name in often.lists)
    np.testing.assert_array_equal(once.overall.rows, often.overall.rows)
    for name, expected in once.lists.items():
        np.testing.assert_array_equal(often.lists[name].rows, expected.rows)
        np.testing.assert_allclose(often.lists[name].scores, expected.scores)


def test_one_who_comes_again_counts_as_of_the_last_time() -> None:
    """Somebody who is back after a month is as much of a reader as somebody new; in the count of all they are one."""
    rows, month = np.zeros(3, np.int64), 30 * 24 * HOUR_MS
    back = PopularityTimeline.build(np.array([1, 1, 1]), rows, NOW_MS - np.array([2 * month, month, 1]), 1)
    new = PopularityTimeline.build(np.array([1]), rows[:1], np.array([NOW_MS - 1]), 1)
    np.testing.assert_allclose(back.table(NOW_MS), new.table(NOW_MS), rtol=1e-5)
    assert back.table(NOW_MS)[0, -1] == pytest.approx(np.log(2))
