from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.serving import BlendConfig
from engine.contract.limits import TIME_END_MS
from engine.features.context import ContextEncoder
from engine.features.history import HistoryStates
from engine.features.profile import PROFILE, ItemStats
from engine.features.schema import CONTEXT_DENSE, DEMOGRAPHICS, ITEM_DYNAMIC, SESSION_DENSE
from engine.features.session import SessionSettings, SessionSignal, session_before, session_signal
from engine.features.state import UserRecord
from engine.stages.rank import ranking_context
from engine.training.ranker.examples import Examples, build_examples, request_inputs
from engine.training.ranker.item_table import item_popularity
from engine.types import Demographics, RecommendQuery
from tests.engine.training.ranker.small import CONFIG, head_model, ranker, split, tables, world

_SESSION = slice(len(PROFILE) + 1, len(PROFILE) + 1 + len(SESSION_DENSE))
_TEXTS = (*DEMOGRAPHICS, "device", "country", "surface")
# Of the session, among the dense features of a moment.
_FIRST = len(PROFILE) + CONTEXT_DENSE.index(SESSION_DENSE[0])
_SESSION = slice(_FIRST, _FIRST + len(SESSION_DENSE))


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
    np.testing.assert_allclose(examples.sample_weight[:, retrieved].sum(axis=1), CONFIG.candidate_count, rtol=1e-5)
    np.testing.assert_array_equal(examples.sample_weight[:, retrieved.stop :], 0)
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
        np.testing.assert_array_equal(examples.inputs.dense[i, _SESSION], signal.dense)


def test_some_examples_are_not_told_of_a_session(examples: Examples) -> None:
    stats = ItemStats.from_tables(ranker().schema, *tables())
    untold = CONFIG.model_copy(update={"session_unknown_share": 0.5})
    some = build_examples(world(), split(), head_model(), head_model(), stats, item_popularity(world()), untold, 0)
    silent = ~some.inputs.session.any(axis=1)
    assert 0.3 < silent.mean() < 0.7
    empty = np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64)
    nothing = session_signal(*empty, head_model().item_vectors, 0, SessionSettings.of(BlendConfig())).dense
    told_nothing = some.inputs.dense[silent, _SESSION]
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


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    moments_ms=st.lists(st.integers(0, TIME_END_MS - 1), min_size=1, max_size=6),
)
def test_training_and_serving_encode_a_request_to_the_same_bits(seed: int, moments_ms: list[int]) -> None:
    rng = np.random.default_rng(seed)
    count = len(moments_ms)
    vocabularies = {name: tuple(f"{name} {value}" for value in range(rng.integers(1, 5))) for name in _TEXTS}
    # What no vocabulary has has code 0.
    values = {name: ["", *known] for name, known in vocabularies.items()}
    users = {name: rng.choice(values[name], world().user_count) for name in DEMOGRAPHICS}
    dataset = replace(world(), users=world().users.with_columns(**users), vocabularies=vocabularies)
    codes = {name: rng.integers(0, len(values[name]), count) for name in ("device", "country", "surface")}
    moments = replace(
        split(),
        states=HistoryStates(split().states.users[:count], split().states.lengths[:count]),
        positives=split().positives[:count],
        moments_ms=np.array(moments_ms),
        surfaces=codes["surface"],
        devices=codes["device"],
        countries=codes["country"],
    )
    schema = ranker().schema.model_copy(update={"vocabularies": vocabularies})
    stats = ItemStats.from_tables(schema, *tables())
    trained = request_inputs(dataset, moments, head_model(), head_model(), stats)
    assert trained.dense.flags.c_contiguous
    assert trained.codes.flags.c_contiguous

    encoder = ContextEncoder(schema)
    for place, user in enumerate(moments.states.users.tolist()):
        record = UserRecord(
            generation=0,
            embedding=trained.query[place],
            collaborative=trained.collaborative[place],
            profile=trained.dense[place, : len(PROFILE)],
            interaction_count=1,
            purchase_count=0,
            demographics=Demographics(**{name: str(column[user]) for name, column in users.items()}),
        )
        texts = {name: values[name][column[place]] for name, column in codes.items()}
        query = RecommendQuery(user_id="user", item_count=1, time_ms=moments_ms[place], **texts)
        session = SessionSignal(trained.session[place], 1.0, trained.dense[place, _SESSION])
        served = ranking_context(encoder, query, record, trained.query[place], session)
        for name in ("dense", "codes"):
            row, one = getattr(trained, name)[place], getattr(served, name)
            assert (one.dtype, one.tobytes()) == (row.dtype, row.tobytes())
