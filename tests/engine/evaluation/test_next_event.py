from dataclasses import replace

import numpy as np
import pytest

from engine.config.serving import BlendConfig, EngineConfig
from engine.data.dataset import Dataset
from engine.errors import DataError
from engine.evaluation.next_event import (
    METHODS,
    PUBLISH_EVERY_MS,
    TAIL_EVENTS,
    NextEvents,
    next_events,
    query_vectors,
    target_positions,
)
from engine.evaluation.run_next_event import NextEventReport, _figures, by_user, evaluate_next_event
from engine.stages.blend import BlendSettings
from engine.training.embeddings import EmbeddingModel
from engine.training.train import train_embeddings
from engine.types import EventType
from tests.conftest import SMALL_TRAINING, Trained

MIN_EVENTS = 5
WINDOW_S = 1800.0
SESSION_EVENTS = 10
SETTINGS = BlendSettings.of(BlendConfig())


def split(dataset: Dataset) -> NextEvents:
    return next_events(dataset, MIN_EVENTS, WINDOW_S, SESSION_EVENTS)


@pytest.fixture(scope="module")
def events(trained: Trained) -> NextEvents:
    return split(trained.dataset)


@pytest.fixture(scope="module")
def model(events: NextEvents) -> EmbeddingModel:
    als, towers = train_embeddings(events.train, SMALL_TRAINING, "", None)
    return towers or als


@pytest.fixture(scope="module")
def report(trained: Trained) -> NextEventReport:
    config = SMALL_TRAINING.model_copy(update={"embeddings": "als"})
    return evaluate_next_event(trained.dataset, config, EngineConfig(), [1, 2])


def test_events_come_in_time_order_each_with_what_came_strictly_before(trained: Trained, events: NextEvents) -> None:
    positive = trained.dataset.interactions.positive()
    assert len(events) > 100
    assert (np.diff(events.times_ms) >= 0).all()
    for event in range(0, len(events), 7):
        user, time_ms = events.users[event], events.times_ms[event]
        own = positive.select(positive.users == user)
        before = own.timestamps_ms < time_ms
        assert events.known[event] == before.sum()
        assert events.targets[event] not in own.rows[before]
        assert events.targets[event] in own.rows[own.timestamps_ms == time_ms]
        training = events.train.interactions.timestamps_ms[events.train.interactions.users == user]
        assert len(training) >= MIN_EVENTS
        assert training.max() < time_ms
        hour = time_ms // PUBLISH_EVERY_MS * PUBLISH_EVERY_MS
        assert events.published[event] == max(len(training), (own.timestamps_ms < hour).sum())


def test_training_and_tails_are_the_whole(trained: Trained, events: NextEvents) -> None:
    lengths = trained.dataset.histories().lengths()
    left = events.train.histories().lengths()
    replayed = np.unique(events.users)
    others = np.setdiff1d(np.arange(len(lengths)), replayed)
    assert (left[replayed] < lengths[replayed]).all()
    assert (np.bincount(events.users, minlength=len(lengths)) <= TAIL_EVENTS).all()
    # Nothing but tails is held out; a tail without a new item is held out and tests nothing.
    assert (left[others] == lengths[others]).mean() > 0.9
    whole, head = trained.dataset.histories(), events.train.histories()
    for user in replayed:
        start, kept = whole.offsets[user], head.rows[head.offsets[user] : head.offsets[user + 1]]
        np.testing.assert_array_equal(kept, whole.rows[start : start + left[user]])


def test_a_session_is_what_the_processor_would_hold(trained: Trained, events: NextEvents) -> None:
    everything = trained.dataset.interactions
    assert (events.session_stops > events.session_starts).any()
    for event in range(0, len(events), 7):
        held = slice(events.session_starts[event], events.session_stops[event])
        age_ms = events.times_ms[event] - everything.timestamps_ms
        expected = everything.select(
            (everything.users == events.users[event])
            & (everything.event_types != EventType.IMPRESSION)
            & (age_ms > 0)
            & (age_ms <= WINDOW_S * 1000)
        )
        np.testing.assert_array_equal(events.signals.rows[held], expected.rows[-SESSION_EVENTS:])
        np.testing.assert_array_equal(events.signals.timestamps_ms[held], expected.timestamps_ms[-SESSION_EVENTS:])


def test_a_tie_is_never_cut_and_never_known(trained: Trained) -> None:
    """With all times in whole hours, many of an event's companions share its moment."""
    interactions = trained.dataset.interactions
    coarse = interactions.select(np.ones(len(interactions), np.bool_))
    coarse.timestamps_ms[:] = coarse.timestamps_ms // PUBLISH_EVERY_MS * PUBLISH_EVERY_MS
    events = split(trained.dataset.with_interactions(coarse))
    assert len(events) > 50
    histories = events.histories
    ends = histories.offsets[events.users] + events.known
    assert (histories.timestamps_ms[ends - 1] < events.times_ms).all()
    assert (histories.timestamps_ms[ends] == events.times_ms).all()
    assert (events.published <= events.known).all()


def test_later_events_change_no_earlier_query(trained: Trained, events: NextEvents, model: EmbeddingModel) -> None:
    """Replaying a log whose second half is of other items gives the same first half, bit for bit."""
    middle = len(events) // 2
    now_ms = events.times_ms[middle]
    interactions = trained.dataset.interactions
    other = interactions.select(np.ones(len(interactions), np.bool_))
    later = other.timestamps_ms >= now_ms
    other.rows[later] = (other.rows[later] + 17) % trained.dataset.item_count
    other.event_types[later & (other.event_types == EventType.VIEW)] = EventType.PURCHASE
    changed = split(trained.dataset.with_interactions(other))
    earlier, still = events.times_ms < now_ms, changed.times_ms < now_ms
    np.testing.assert_array_equal(events.targets[earlier], changed.targets[still])
    before, after = query_vectors(model, events, SETTINGS), query_vectors(model, changed, SETTINGS)
    for method in METHODS:
        np.testing.assert_allclose(before[method][earlier], after[method][still], rtol=1e-4, atol=1e-5)
    assert not np.array_equal(events.targets[~earlier], changed.targets[~still])


def test_a_position_is_the_one_in_an_exact_search_without_seen_items(events: NextEvents, model: EmbeddingModel) -> None:
    rng = np.random.default_rng(5)
    # Small whole numbers: exact, and with many ties.
    items = rng.integers(-2, 3, model.item_vectors.shape).astype(np.float32)
    queries = rng.integers(-2, 3, (len(events), items.shape[1])).astype(np.float32)
    positions = target_positions(queries, items, events)
    for event in range(0, len(events), 7):
        start = events.histories.offsets[events.users[event]]
        seen = events.histories.rows[start : start + events.known[event]]
        order = np.argsort(-(items @ queries[event]), kind="stable")
        ranked = order[~np.isin(order, seen)]
        assert ranked[positions[event]] == events.targets[event]
    # Where nothing is hidden, everything is ranked.
    open_to_all = target_positions(queries, items, replace(events, hide_s=np.zeros(256, np.int64)))
    for event in range(0, len(events), 7):
        order = np.argsort(-(items @ queries[event]), kind="stable")
        assert order[open_to_all[event]] == events.targets[event]


def test_methods_differ_just_where_there_is_something_fresh(events: NextEvents, model: EmbeddingModel) -> None:
    vectors = query_vectors(model, events, SETTINGS)
    stale, blended, fresh, both = (vectors[method] for method in METHODS)
    quiet = events.session_stops == events.session_starts
    up_to_date = events.published == events.known
    assert quiet.any()
    assert up_to_date.any()
    np.testing.assert_array_equal(stale[quiet], blended[quiet])
    np.testing.assert_array_equal(fresh[quiet], both[quiet])
    np.testing.assert_array_equal(stale[up_to_date], fresh[up_to_date])
    behind = ~quiet & ~up_to_date
    assert (np.abs(stale - blended)[behind].max(axis=1) > 0).mean() > 0.9
    assert (np.abs(stale - fresh)[behind].max(axis=1) > 0).all()


def test_every_method_is_measured_on_the_same_events(report: NextEventReport, events: NextEvents) -> None:
    assert (report.users, report.events) == (len(np.unique(events.users)), len(events))
    assert 0 < report.in_session_events < report.events
    assert report.in_session_users <= report.users
    assert list(report.overall) == list(report.in_session) == list(METHODS)
    for method, part in report.overall.items():
        assert 0 < part.ndcg_at_10.mean <= part.hr_at_10.mean <= part.hr_at_50.mean <= 1
        for name, by_seed in report.seed_means[method].items():
            assert getattr(part, name).mean == pytest.approx(np.mean(by_seed))
        gain = part.hr_at_10.mean - report.overall["stale"].hr_at_10.mean
        assert part.hr_at_10_gain.mean == pytest.approx(gain)
    assert report.overall["stale"].hr_at_10_gain.standard_error == 0


def test_what_is_fresh_helps_where_intent_drifts(report: NextEventReport) -> None:
    in_session = report.in_session
    assert in_session["blended"].hr_at_50.mean > in_session["stale"].hr_at_50.mean
    assert in_session["re-embedded"].hr_at_50.mean > in_session["stale"].hr_at_50.mean


def test_figures_are_what_one_counts_by_hand() -> None:
    """Of the chosen events alone, over two seeds; each user's events and seeds are averaged before users are."""
    rng = np.random.default_rng(1)
    users, chosen = rng.integers(0, 40, 500), rng.random(500) < 0.7
    found, stale = ([rng.choice([0, 8, 9, 10, 11, 48, 49, 50, 51], 500) for _ in range(2)] for _ in range(2))
    figures = _figures(found, stale, users, chosen)

    def by_user(values: list[np.ndarray]) -> np.ndarray:
        return np.array([np.mean(values, axis=0)[chosen & (users == user)].mean() for user in np.unique(users[chosen])])

    in_10, in_50 = (by_user([positions < k for positions in found]) for k in (10, 50))
    gained = by_user([np.where(positions < 10, 1 / np.log2(positions + 2), 0) for positions in found])
    more = in_10 - by_user([positions < 10 for positions in stale])
    for estimate, values in (
        (figures.hr_at_10, in_10),
        (figures.ndcg_at_10, gained),
        (figures.hr_at_50, in_50),
        (figures.hr_at_10_gain, more),
    ):
        assert estimate.mean == pytest.approx(values.mean())
        assert estimate.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(len(values)))


def test_each_user_counts_once() -> None:
    values = np.array([1.0, 0.0, 1.0, 1.0])
    np.testing.assert_allclose(by_user(values, np.array([4, 4, 4, 9])), [2 / 3, 1.0])


def test_data_without_a_history_to_replay_is_refused(trained: Trained) -> None:
    interactions = trained.dataset.interactions
    short = trained.dataset.with_interactions(interactions.select(np.arange(len(interactions)) < 20))
    with pytest.raises(DataError, match="no user"):
        evaluate_next_event(short, SMALL_TRAINING, EngineConfig(), [1])
