from dataclasses import replace

import numpy as np
import pytest

from engine.config.serving import BlendConfig
from engine.features.context import ContextEncoder
from engine.features.profile import PROFILE, ItemStats
from engine.features.schema import ITEM_DYNAMIC, SESSION_DENSE
from engine.features.session import SessionSettings, session_before, session_signal
from engine.training.ranker.examples import Examples, build_examples, request_inputs
from engine.training.ranker.item_table import item_popularity
from engine.types import Demographics
from tests.engine.training.ranker.small import CONFIG, head_model, ranker, split, tables, world


@pytest.fixture(scope="module")
def examples() -> Examples:
    stats = ItemStats.from_tables(ranker().schema, *tables())
    popularity = item_popularity(world())
    return build_examples(world(), split(), head_model(), head_model(), stats, popularity, CONFIG, seed=0)


def test_the_chosen_item_comes_first_and_no_negative_is_an_item_of_its_user(examples: Examples) -> None:
    histories = world().histories()
    np.testing.assert_array_equal(examples.rows[:, 0], split().positives)
    assert examples.valid[:, 0].all()
    for user, rows, valid in zip(examples.users, examples.rows, examples.valid, strict=True):
        own = histories.rows[histories.offsets[user] : histories.offsets[user + 1]]
        assert not np.isin(rows[1:][valid[1:]], own).any()


def test_sampled_negatives_stand_for_the_whole_pool(examples: Examples) -> None:
    retrieved = slice(1, 1 + CONFIG.top_negatives + CONFIG.retrieved_negatives)
    np.testing.assert_allclose(examples.stands_for[:, retrieved].sum(axis=1), CONFIG.candidate_count, rtol=1e-5)
    np.testing.assert_array_equal(examples.stands_for[:, retrieved.stop :], 0)
    for rows in examples.rows[:, retrieved]:
        assert len(np.unique(rows)) == len(rows)


def test_the_first_negatives_are_what_retrieval_puts_first(examples: Examples) -> None:
    scores = examples.inputs.query @ head_model().item_vectors.T
    histories = world().histories()
    for row, user in enumerate(examples.users):
        scores[row, histories.rows[histories.offsets[user] : histories.offsets[user + 1]]] = -np.inf
    best = np.argsort(-scores, axis=1)[:, : CONFIG.top_negatives]
    for found, expected in zip(examples.rows[:, 1 : 1 + CONFIG.top_negatives], best, strict=True):
        assert set(found) == set(expected)


def test_popularity_is_as_of_the_moment(examples: Examples) -> None:
    events = world().interactions
    assert examples.dynamic.shape == (*examples.rows.shape, len(ITEM_DYNAMIC))
    for i in range(0, len(examples), 17):
        before = events.timestamps_ms < split().moments_ms[i]
        pairs = np.unique(np.stack([events.users[before], events.rows[before]]), axis=1)
        counts = np.bincount(pairs[1], minlength=world().item_count)[examples.rows[i]]
        np.testing.assert_allclose(examples.dynamic[i, :, -1], np.log1p(counts), rtol=1e-5)


def test_codes_are_those_that_serving_computes(examples: Examples) -> None:
    encoder = ContextEncoder(ranker().schema)
    for codes, moment_ms in zip(examples.inputs.codes, split().moments_ms, strict=True):
        np.testing.assert_array_equal(codes, encoder.codes(Demographics(), "", "", "", int(moment_ms)))


def test_sessions_are_read_in_the_space_of_the_query(examples: Examples) -> None:
    histories = world().histories()
    vectors = head_model().item_vectors
    settings = SessionSettings.of(BlendConfig())
    for i in range(0, len(examples), 17):
        user, moment_ms = int(examples.users[i]), int(split().moments_ms[i])
        part = session_before(histories, user, moment_ms, settings.window_s, 50)
        session = histories.rows[part], histories.event_types[part], histories.timestamps_ms[part]
        signal = session_signal(*session, vectors, moment_ms, settings)
        assert signal.evidence > 0
        np.testing.assert_array_equal(examples.inputs.session[i], signal.vector)
        np.testing.assert_array_equal(examples.inputs.dense[i, -len(SESSION_DENSE) :], signal.dense)


def test_some_examples_are_not_told_of_a_session(examples: Examples) -> None:
    stats = ItemStats.from_tables(ranker().schema, *tables())
    untold = CONFIG.model_copy(update={"session_unknown_share": 0.5})
    some = build_examples(world(), split(), head_model(), head_model(), stats, item_popularity(world()), untold, 0)
    silent = ~some.inputs.session.any(axis=1)
    assert 0.3 < silent.mean() < 0.7
    empty = np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64)
    nothing = session_signal(*empty, head_model().item_vectors, 0, SessionSettings.of(BlendConfig())).dense
    told_nothing = some.inputs.dense[silent, -len(SESSION_DENSE) :]
    np.testing.assert_array_equal(told_nothing, np.broadcast_to(nothing, told_nothing.shape))
    np.testing.assert_array_equal(some.inputs.dense[~silent], examples.inputs.dense[~silent])
    np.testing.assert_array_equal(some.inputs.query, examples.inputs.query)


def test_what_was_only_shown_is_no_session(examples: Examples) -> None:
    shown = world().interactions
    everything = world().with_interactions(replace(shown, event_types=np.full_like(shown.event_types, 0)))
    stats = ItemStats.from_tables(ranker().schema, *tables())
    inputs = request_inputs(everything, split(), head_model(), head_model(), stats)
    assert not inputs.session.any()
    assert examples.inputs.session.any()


def test_dense_is_what_serving_computes(examples: Examples) -> None:
    encoder = ContextEncoder(ranker().schema)
    for dense, moment_ms in zip(examples.inputs.dense, split().moments_ms, strict=True):
        np.testing.assert_allclose(
            dense, encoder.dense(dense[: len(PROFILE)], int(moment_ms), dense[-len(SESSION_DENSE) :]), rtol=1e-6
        )
