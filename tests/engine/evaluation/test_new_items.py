import numpy as np
import pytest

from engine.data.dataset import Dataset
from engine.errors import ConfigError, DataError
from engine.evaluation.leave_one_out import MIN_TRAINING_EVENTS
from engine.evaluation.new_items import HELD_OUT_SHARE, MIN_ITEM_EVENTS, NewItemsSplit, new_items
from engine.evaluation.revealed import ATTRIBUTES, CATEGORY, PRIOR_EVENTS, AttributeTaste, Revealed
from engine.evaluation.run_new_items import (
    CONTENT,
    REVEALED,
    NewItemsReport,
    _figures,
    evaluate_new_items,
    target_positions,
)
from tests.conftest import SMALL_TRAINING, Trained
from tests.engine.training.worlds import taste_world

SEED = 1


@pytest.fixture(scope="module")
def split(trained: Trained) -> NewItemsSplit:
    return new_items(trained.dataset, SEED)


@pytest.fixture(scope="module")
def world() -> Dataset:
    """Users of one of four groups of items; the group is in the content."""
    return taste_world(7, user_count=150, item_count=200)


@pytest.fixture(scope="module")
def report(world: Dataset) -> NewItemsReport:
    return evaluate_new_items(world, SMALL_TRAINING, [1, 2])


def test_no_trace_of_the_new_items_is_left_in_training(trained: Trained, split: NewItemsSplit) -> None:
    dataset = trained.dataset
    counts = np.bincount(dataset.interactions.positive().rows, minlength=dataset.item_count)
    ids = dataset.items["item_id"].to_list()
    drawn = np.flatnonzero(np.isin(ids, split.items["item_id"].to_list()))
    assert len(drawn) == int(HELD_OUT_SHARE * (counts >= MIN_ITEM_EVENTS).sum())
    assert (counts[drawn] >= MIN_ITEM_EVENTS).all()
    known = split.train.items["item_id"].to_list()
    assert set(known).isdisjoint(split.items["item_id"])
    assert [ids[row] for row in range(len(ids)) if row not in drawn] == known
    # All other events stay, on the same items.
    events, left = dataset.interactions, split.train.interactions
    kept = ~np.isin(events.rows, drawn)
    assert [ids[row] for row in events.rows[kept]] == [known[row] for row in left.rows]
    np.testing.assert_array_equal(events.users[kept], left.users)
    np.testing.assert_array_equal(events.timestamps_ms[kept], left.timestamps_ms)


def test_each_user_is_asked_about_their_last_new_item(trained: Trained, split: NewItemsSplit) -> None:
    events = trained.dataset.interactions.positive()
    ids = trained.dataset.items["item_id"].to_numpy()[events.rows]
    new_ids = split.items["item_id"].to_list()
    assert len(split.users) > 30
    assert len(np.unique(split.users)) == len(split.users)
    for user, target, known in zip(split.users, split.targets, split.known, strict=True):
        own = events.users == user
        on_new = own & np.isin(ids, new_ids)
        firsts = {item: events.timestamps_ms[on_new & (ids == item)].min() for item in set(ids[on_new])}
        assert firsts[new_ids[target]] == max(firsts.values())
        before = own & ~on_new & (events.timestamps_ms < max(firsts.values()))
        assert known == before.sum() >= MIN_TRAINING_EVENTS


def test_the_same_seed_draws_the_same_items(trained: Trained, split: NewItemsSplit) -> None:
    again, other = new_items(trained.dataset, SEED), new_items(trained.dataset, SEED + 1)
    assert again.items.equals(split.items)
    np.testing.assert_array_equal(again.event_users, split.event_users)
    assert not other.items.equals(split.items)


def test_too_little_data_is_refused(trained: Trained) -> None:
    interactions = trained.dataset.interactions
    short = trained.dataset.with_interactions(interactions.select(np.arange(len(interactions)) < 20))
    with pytest.raises(DataError, match="no user has enough events"):
        new_items(short, SEED)


@pytest.mark.parametrize("k", [1, 3])
def test_nobody_is_asked_with_their_own_interaction(split: NewItemsSplit, k: int) -> None:
    revealed = Revealed.of(split, k)
    np.testing.assert_array_equal(split.event_rows[revealed.events[revealed.sets < revealed.item_count]],
                                  revealed.sets[revealed.sets < revealed.item_count])  # fmt: skip
    sizes = np.bincount(revealed.sets, minlength=revealed.set_count)
    available = np.bincount(split.event_rows[split.event_known > 0], minlength=revealed.item_count)
    np.testing.assert_array_equal(sizes[: revealed.item_count], np.minimum(available, k))
    replaced = np.zeros((len(split.users), revealed.item_count), np.bool_)
    replaced[revealed.asked, revealed.rows] = True
    assert replaced.sum() == len(revealed.rows) > 0
    for pair, (asked, row) in enumerate(zip(revealed.asked, revealed.rows, strict=True)):
        own = revealed.events[revealed.sets == revealed.item_count + pair]
        assert (split.event_rows[own] == row).all()
        assert split.users[asked] not in split.event_users[own]
        assert len(own) == min(k, available[row] - 1)
    for row in range(revealed.item_count):
        others = split.event_users[revealed.events[revealed.sets == row]]
        for asked in np.flatnonzero(np.isin(split.users, others)):
            assert replaced[asked, row]


def test_scores_use_the_set_that_each_user_may_see(split: NewItemsSplit) -> None:
    revealed = Revealed.of(split, 2)
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(len(split.users), 4)).astype(np.float32)
    vectors = rng.normal(size=(revealed.set_count, 4)).astype(np.float32)
    scores = revealed.scores(queries, vectors)
    expected = queries @ vectors[: revealed.item_count].T
    for pair, (asked, row) in enumerate(zip(revealed.asked, revealed.rows, strict=True)):
        expected[asked, row] = queries[asked] @ vectors[revealed.item_count + pair]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


def test_own_attributes_are_the_log_odds_of_an_items_tokens(split: NewItemsSplit) -> None:
    taste = AttributeTaste.of(split.train.items, split.items, split.histories, CATEGORY)
    scores, popular = taste.of_users(split.histories, split.states), taste.popularity()
    categories = split.train.items["category"].str.to_lowercase().to_list()
    history_categories = [categories[row] for row in split.histories.rows]
    for line in range(0, len(split.users), 9):
        start = split.histories.offsets[split.users[line]]
        own = history_categories[start : start + split.known[line]]
        for new_row in range(0, len(split.items), 11):
            category = split.items["category"][new_row].lower()
            offered = categories.count(category) / len(categories)
            taken = (history_categories.count(category) + offered) / (len(history_categories) + 1)
            share = (own.count(category) + PRIOR_EVENTS * taken) / (len(own) + PRIOR_EVENTS)
            assert scores[line, new_row] == pytest.approx(np.log(share / offered))
            assert popular[new_row] == pytest.approx(np.log(taken / offered))
    assert AttributeTaste.of(split.train.items, split.items, split.histories, ATTRIBUTES).known.shape[1] > len(
        set(categories)
    )


def test_a_position_counts_what_stands_above_and_equals_come_in_any_order() -> None:
    scores = np.array([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0]]).repeat(3000, axis=0)
    targets = np.array([2, 1]).repeat(3000)
    positions = target_positions(scores, targets, np.random.default_rng(1))
    assert (positions[:3000] == 1).all()
    np.testing.assert_allclose(np.bincount(positions[3000:]) / 3000, 1 / 3, atol=0.05)


def test_content_finds_the_users_of_a_new_item(report: NewItemsReport) -> None:
    names = ["random", "category popularity", "attribute popularity", "own attributes", CONTENT]
    names += [f"{space} + {k}" for space in (CONTENT, "ALS") for k in REVEALED]
    assert list(report.methods) == list(report.seed_means) == names
    for name, figures in report.methods.items():
        assert 0 <= figures.ndcg_at_10.mean <= figures.hr_at_10.mean <= figures.hr_at_50.mean <= 1
        assert len(report.seed_means[name]["hr_at_10"]) == 2
    assert report.methods[CONTENT].hr_at_50_gain.mean == 0
    assert report.questions > report.users > 50
    # A quarter of the new items is of the user's group.
    assert report.methods[CONTENT].hr_at_10.mean > 1.8 * report.methods["random"].hr_at_10.mean
    assert report.methods["own attributes"].hr_at_10.mean > 1.8 * report.methods["random"].hr_at_10.mean


def test_interactions_tell_what_content_does_not(world: Dataset) -> None:
    """With titles and categories that say nothing, the first users of an item are all there is to know."""
    silent = world.items.with_columns(
        *(world.items[name].sample(fraction=1.0, shuffle=True, seed=3) for name in ("title", "category", "attributes"))
    )
    dataset = Dataset(silent, world.users, world.interactions, world.vocabularies)
    report = evaluate_new_items(dataset, SMALL_TRAINING, [1])
    by_name = {name: figures.hr_at_10.mean for name, figures in report.methods.items()}
    assert by_name["content + 5"] > 1.3 * by_name[CONTENT]


def test_towers_are_needed(trained: Trained) -> None:
    with pytest.raises(ConfigError, match="two-tower"):
        evaluate_new_items(trained.dataset, SMALL_TRAINING.model_copy(update={"embeddings": "als"}), [1])


def test_figures_are_what_one_counts_by_hand() -> None:
    """Each user's questions are averaged before users are."""
    rng = np.random.default_rng(1)
    users = rng.integers(0, 40, 500)
    found, content = (rng.choice([0, 8, 9, 10, 11, 48, 49, 50, 51], 500) for _ in range(2))
    figures = _figures(found, content, users)
    for estimate, values in (
        (figures.hr_at_10, found < 10),
        (figures.ndcg_at_10, np.where(found < 10, 1 / np.log2(found + 2), 0)),
        (figures.hr_at_50, found < 50),
        (figures.hr_at_50_gain, 1.0 * (found < 50) - (content < 50)),
    ):
        means = np.array([values[users == user].mean() for user in np.unique(users)])
        assert estimate.mean == pytest.approx(means.mean())
        assert estimate.standard_error == pytest.approx(means.std(ddof=1) / np.sqrt(len(means)))
