"""The pipeline over a real bundle, index and ranker: what holds for any user, any request, any stock."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.adapters.onnx.ranker import OnnxRanker
from engine.app.model import load_model
from engine.catalog.changes import ItemState
from engine.config.serving import EngineConfig
from engine.errors import DeadlineExceeded, EngineError
from engine.features.schema import CONTEXT_DENSE
from engine.features.state import SeenItems, Session, UserRecord, UserState
from engine.kernels.membership import test_rows as rows_in
from engine.request.clock import RequestClock, StageEstimates
from engine.request.model import ServingModel
from engine.request.pipeline import Pipeline
from engine.stages import BUDGETS_MS, STAGES
from engine.stages.features import FetchFeatures
from engine.stages.retrieve import ItemIndex
from engine.types import (
    DegradedReason,
    Demographics,
    EventType,
    Float32Array,
    Int64Array,
    ItemSource,
    RankingContext,
    Recommendation,
    RecommendQuery,
    Strategy,
    UInt8Array,
    item_keys,
)
from tests.conftest import Trained

NOW_MS = 1_767_000_000_000
SURFACES = ["home", "category", "cart", "email"]


class UnknownUsers:
    """A feature store in which nobody is known; the pipeline's own work is under test here."""

    async def fetch(self, user_id: str, generation: int) -> UserState:
        return UserState.unknown()


@pytest.fixture(scope="module")
def model(trained: Trained) -> ServingModel:
    return load_model(trained.bundles.current(), EngineConfig.load())


@pytest.fixture(scope="module")
def pipeline(model: ServingModel) -> Iterator[Pipeline]:
    with ThreadPoolExecutor(2) as executor:
        yield Pipeline(model, FetchFeatures(UnknownUsers(), 1.0, 1 << 20), EngineConfig.load(), executor)


@pytest.fixture(scope="module")
def steady(model: ServingModel) -> Iterator[Pipeline]:
    """Without rotation: everybody of a segment gets the same list."""
    with ThreadPoolExecutor(1) as executor:
        config = EngineConfig.load(cold_start={"rotation_share": 0.0})
        yield Pipeline(model, FetchFeatures(UnknownUsers(), 1.0, 1 << 20), config, executor)


def clock(seconds: float = 60.0) -> RequestClock:
    return RequestClock(time.monotonic() + seconds, StageEstimates())


def record(model: ServingModel, seed: int = 0, interaction_count: int = 50) -> UserRecord:
    rng = np.random.default_rng(seed)
    schema = model.bundle.schema
    return UserRecord(
        generation=model.bundle.manifest.generation,
        embedding=rng.normal(size=schema.embedding_dim).astype(np.float32),
        collaborative=rng.normal(size=schema.collaborative_dim).astype(np.float32),
        profile=rng.normal(size=len(schema.profile)).astype(np.float32),
        interaction_count=interaction_count,
        purchase_count=1,
        demographics=Demographics(),
    )


def ask(pipeline: Pipeline, model: ServingModel, query: RecommendQuery, state: UserState) -> Recommendation:
    return pipeline.answer(model, query, pipeline.experiments.assign(query), state, clock())


def query(**changes: Any) -> RecommendQuery:
    return replace(RecommendQuery("u", "home", 50, NOW_MS), **changes)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_never_short_never_twice_never_what_must_not_be_shown(
    data: st.DataObject, pipeline: Pipeline, model: ServingModel
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    item_count = len(model.bundle.items)
    seen = rng.permutation(item_count)[: data.draw(st.integers(0, item_count))]
    excluded = rng.permutation(item_count)[: data.draw(st.integers(0, 300))]
    asked = data.draw(st.integers(1, 200))
    surface = data.draw(st.sampled_from(SURFACES))
    known = data.draw(st.sampled_from(["unknown", "thin", "known"]))
    clicked = item_keys([*model.bundle.items.ids(rng.integers(0, item_count, 5)), "an item of another catalogue"])
    state = UserState(
        None if known == "unknown" else record(model, seed, 2 if known == "thin" else 50),
        Session(clicked, np.full(6, EventType.CLICK, np.uint8), np.full(6, NOW_MS - 1000)),
        SeenItems.of(
            item_keys([*model.bundle.items.ids(seen), "gone from the catalogue"]), EventType.PURCHASE, NOW_MS // 1000
        ),
    )
    request = query(
        surface=surface,
        item_count=asked,
        diversity_weight=data.draw(st.sampled_from([None, 0.0, 0.3, 1.0])),
        exclude_item_ids=(*model.bundle.items.ids(excluded), "never heard of"),
        demographics=Demographics(age_group=data.draw(st.sampled_from(["", "18-24", "nonsense"]))),
    )
    answer = ask(pipeline, model, request, state)

    eligible = rows_in(model.catalogue.of_surface(surface), np.arange(item_count))
    eligible[excluded] = False
    rows = answer.slate.rows
    assert len(np.unique(rows)) == len(rows)
    assert eligible[rows].all()
    assert len(rows) == min(asked, int(eligible.sum()))
    # What was bought is there only where nothing else is left, and says so.
    again = np.isin(rows, seen)
    eligible[seen] = False
    assert again.sum() == max(0, len(rows) - int(eligible.sum()))
    assert (answer.slate.sources[again] == ItemSource.LET_BACK_IN).all()
    assert answer.let_back_in == dict.fromkeys(model.bundle.items.ids(rows[again]), "purchase")
    assert answer.item_ids == model.bundle.items.ids(rows)
    assert answer.degraded_reasons == ()
    assert (answer.strategy is Strategy.PERSONALIZED) == (known == "known")


def test_the_same_request_gives_the_same_answer(pipeline: Pipeline, model: ServingModel) -> None:
    state = UserState(record(model), Session.empty(), SeenItems.none())
    first, second = (ask(pipeline, model, query(), state) for _ in range(2))
    assert first.item_ids == second.item_ids
    np.testing.assert_array_equal(first.slate.scores, second.slate.scores)


def test_without_diversity_scores_fall_and_are_probabilities(pipeline: Pipeline, model: ServingModel) -> None:
    state = UserState(record(model), Session.empty(), SeenItems.none())
    scores = ask(pipeline, model, query(diversity_weight=0.0), state).slate.scores
    assert (np.diff(scores) <= 0).all()
    assert ((scores > 0) & (scores < 1)).all()


def test_diversity_makes_slates_less_alike(pipeline: Pipeline, model: ServingModel) -> None:
    def similarity(weight: float) -> float:
        values = []
        for seed in range(10):
            state = UserState(record(model, seed), Session.empty(), SeenItems.none())
            rows = ask(pipeline, model, query(diversity_weight=weight, item_count=20), state).slate.rows
            vectors = np.array(model.bundle.item_vectors[rows])
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            values.append((vectors @ vectors.T).mean())
        return float(np.mean(values))

    assert similarity(0.0) > similarity(0.5) > similarity(1.0)


def test_the_ranker_reads_the_session_whether_or_not_the_embedding_has_read_it(
    pipeline: Pipeline, model: ServingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RankingContext] = []

    def score(self: OnnxRanker, context: RankingContext, rows: Int64Array) -> Float32Array:
        seen.append(context)
        return original(self, context, rows)

    original = OnnxRanker.score
    monkeypatch.setattr(OnnxRanker, "score", score)
    user = record(model)
    item_id = model.bundle.items.ids(np.array([3]))
    clicked = Session(item_keys(item_id), np.array([EventType.CLICK], np.uint8), np.array([NOW_MS - 60_000]))
    knowing = replace(user, embedded_until_ms=NOW_MS - 60_000)
    for known, session in ((user, Session.empty()), (user, clicked), (knowing, clicked)):
        ask(pipeline, model, query(), UserState(known, session, SeenItems.none()))
    without, with_click, already_read = seen
    assert not without.session.any()
    np.testing.assert_array_equal(without.query, user.embedding)
    unit = model.bundle.item_vectors[3] / np.linalg.norm(model.bundle.item_vectors[3])
    np.testing.assert_allclose(with_click.session, unit, rtol=1e-5, atol=1e-6)
    assert not np.allclose(with_click.query, user.embedding)
    np.testing.assert_array_equal(already_read.query, user.embedding)
    np.testing.assert_array_equal(already_read.session, with_click.session)
    np.testing.assert_array_equal(already_read.dense, with_click.dense)
    dense = dict(zip(CONTEXT_DENSE, with_click.dense[-len(CONTEXT_DENSE) :].tolist(), strict=True))
    assert dense["log_session_events"] == pytest.approx(np.log(2.0))
    assert dense["log_session_age_s"] == pytest.approx(np.log1p(60.0))
    assert dense["log_session_evidence"] == pytest.approx(np.log1p(2.0**-0.1))


def test_what_is_mixed_in_is_a_setting_and_what_the_ranker_reads_is_not(
    model: ServingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RankingContext] = []
    original = OnnxRanker.score

    def score(self: OnnxRanker, context: RankingContext, rows: Int64Array) -> Float32Array:
        seen.append(context)
        return original(self, context, rows)

    monkeypatch.setattr(OnnxRanker, "score", score)
    user = record(model)
    session = Session(
        item_keys(model.bundle.items.ids(np.array([3, 7]))),
        np.array([EventType.CLICK, EventType.VIEW], np.uint8),
        np.array([NOW_MS - 900_000, NOW_MS - 60_000]),
    )
    with ThreadPoolExecutor(1) as executor:
        for blend in ({}, {"half_life_s": 60.0, "window_s": 600.0, "event_weights": {"view": 3.0}}):
            pipeline = Pipeline(
                model, FetchFeatures(UnknownUsers(), 1.0, 1 << 20), EngineConfig.load(blend=blend), executor
            )
            ask(pipeline, model, query(), UserState(user, session, SeenItems.none()))
    default, other = seen
    assert np.abs(default.query - other.query).max() > 1e-3
    np.testing.assert_array_equal(default.session, other.session)
    np.testing.assert_array_equal(default.dense, other.dense)
    assert default.session.any()


def test_a_session_moves_the_slate_towards_what_was_clicked(pipeline: Pipeline, model: ServingModel) -> None:
    user = record(model, 1)
    cosine = model.bundle.item_vectors @ user.embedding / np.linalg.norm(model.bundle.item_vectors, axis=1)
    far = int(np.argmin(cosine))
    clicked = Session(
        np.repeat(item_keys(model.bundle.items.ids(np.array([far]))), 5),
        np.full(5, EventType.CLICK, np.uint8),
        np.full(5, NOW_MS - 5000),
    )
    target = np.array(model.bundle.item_vectors[far])
    target /= np.linalg.norm(target)

    def closeness(session: Session) -> float:
        answer = ask(pipeline, model, query(), UserState(user, session, SeenItems.none()))
        vectors = np.array(model.bundle.item_vectors[answer.slate.rows])
        return float((vectors @ target / np.linalg.norm(vectors, axis=1)).mean())

    assert closeness(clicked) > closeness(Session.empty())


def test_live_interactions_end_the_cold_start(pipeline: Pipeline, model: ServingModel) -> None:
    for live, strategy in ((4, Strategy.POPULARITY), (5, Strategy.PERSONALIZED)):
        state = UserState(record(model, 1, 2), Session.empty(), SeenItems.none(), live)
        answer = ask(pipeline, model, query(), state)
        assert (answer.interaction_count, answer.strategy) == (live, strategy)


def test_demographics_of_the_request_choose_the_segment(pipeline: Pipeline, model: ServingModel) -> None:
    keys = [key for key in model.bundle.popularity.lists if "age_group" in key]
    assert keys, "the synthetic world has age groups"
    ages = {age for age in ("18-24", "25-34", "35-44", "45-54", "55-64", "65+") if any(age in key for key in keys)}
    age = sorted(ages)[0]
    answer = ask(pipeline, model, query(demographics=Demographics(age_group=age)), UserState.unknown())
    assert answer.strategy is Strategy.DEMOGRAPHIC
    assert ItemSource.SEGMENT_POPULARITY in answer.slate.sources
    assert ask(pipeline, model, query(), UserState.unknown()).strategy is Strategy.POPULARITY


class Broken:
    """An index and a ranker that fail: the ladder below them is under test."""

    dim, item_count = 16, 600

    def search(self, *args: object) -> None:
        raise EngineError("broken")

    def score(self, *args: object) -> None:
        raise EngineError("broken")


def test_every_rung_of_the_ladder_holds(pipeline: Pipeline, model: ServingModel) -> None:
    state = UserState(record(model), Session.empty(), SeenItems.none())
    no_ranker = ask(pipeline, replace(model, ranker=Broken()), query(diversity_weight=0.0), state)
    assert no_ranker.degraded_reasons == (DegradedReason.RANKING_FAILED,)
    expected, _ = model.index.search(state.record.embedding, 50, model.catalogue.of_surface("home"))  # type: ignore[union-attr]
    np.testing.assert_array_equal(no_ranker.slate.rows, expected)

    no_index = ask(pipeline, replace(model, index=Broken()), query(), state)
    assert no_index.degraded_reasons == (DegradedReason.RETRIEVAL_FAILED,)
    assert no_index.strategy is Strategy.POPULARITY
    assert len(no_index.slate) == 50


def test_a_stranger_with_a_session_is_served_without_an_index(pipeline: Pipeline, model: ServingModel) -> None:
    clicked = item_keys(model.bundle.items.ids(np.array([3])))
    session = Session(clicked, np.array([EventType.CLICK], np.uint8), np.array([NOW_MS - 1000]))
    state = UserState(None, session, SeenItems.none())
    steered = ask(pipeline, model, query(), state)
    assert steered.item_ids != ask(pipeline, model, query(), UserState.unknown()).item_ids
    answer = ask(pipeline, replace(model, index=Broken()), query(), state)
    assert answer.degraded_reasons == (DegradedReason.RETRIEVAL_FAILED,)
    assert answer.strategy is Strategy.POPULARITY
    assert len(answer.slate) == 50
    times = {timing.stage: timing.duration_ms for timing in steered.timings}
    assert {"cold_start", "rerank_by_session", "randomize"} < set(times)
    assert sum(value for stage, value in times.items() if stage != "total") <= times["total"]


class StockChanges:
    """A ranker during whose call some items go out of stock."""

    def __init__(self, model: ServingModel, gone: Int64Array) -> None:
        self._ranker = model.ranker
        self._catalogue = model.catalogue
        self._gone = [ItemState(int(key), in_stock=False) for key in item_keys(model.catalogue.ids(gone))]

    def score(self, context: RankingContext, rows: Int64Array) -> Float32Array:
        self._catalogue.apply(self._gone, 1)
        return self._ranker.score(context, rows)


def test_what_sells_out_under_way_is_neither_kept_nor_filled_up_with(pipeline: Pipeline, trained: Trained) -> None:
    model = load_model(trained.bundles.current(), EngineConfig.load())
    state = UserState(record(model), Session.empty(), SeenItems.none())
    # All but 30 items, the most popular ones among those that go: the slate is short and must stay short.
    gone = np.array(model.bundle.popularity.overall.rows[:-30], np.int64)
    answer = ask(pipeline, replace(model, ranker=StockChanges(model, gone)), query(), state)
    assert answer.strategy is Strategy.PERSONALIZED
    assert not set(answer.slate.rows.tolist()) & set(gone.tolist())
    assert 0 < len(answer.slate) <= 30


class ShortIndex:
    """An index that finds less than there is, as approximate ones may."""

    dim, item_count = 16, 600

    def __init__(self, index: ItemIndex) -> None:
        self._index = index

    def search(self, query: Float32Array, k: int, eligible: UInt8Array) -> tuple[Int64Array, Float32Array]:
        return self._index.search(query, min(k, 3), eligible)


def test_a_short_slate_is_filled_up_from_popularity_and_says_so(pipeline: Pipeline, model: ServingModel) -> None:
    state = UserState(record(model), Session.empty(), SeenItems.none())
    answer = ask(pipeline, replace(model, index=ShortIndex(model.index)), query(diversity_weight=0.0), state)
    assert answer.slate.sources.tolist() == [ItemSource.RETRIEVAL] * 3 + [ItemSource.BACKFILL] * 47
    shown = rows_in(model.catalogue.of_surface("home"), model.popularity.lists.overall.rows.astype(np.int64))
    popular = [row for row in model.popularity.lists.overall.rows[shown].tolist() if row not in answer.slate.rows[:3]]
    assert answer.slate.rows[3:].tolist() == popular[:47]


def test_the_request_knows_better_than_the_record(steady: Pipeline, model: ServingModel) -> None:
    lists = model.bundle.popularity
    ages = [age for age in ("18-24", "25-34", "35-44", "45-54", "55-64", "65+") if lists.of_segment(Demographics(age))]
    stored, said = Demographics(ages[0]), Demographics(ages[-1])
    thin = UserState(
        replace(record(model, interaction_count=1), demographics=stored), Session.empty(), SeenItems.none()
    )
    asked = query(diversity_weight=0.0, item_count=10)
    for request, expected in ((asked, stored), (replace(asked, demographics=said), said)):
        road = lists.of_segment(expected)
        assert road is not None
        shown = road.rows[rows_in(model.catalogue.of_surface("home"), road.rows.astype(np.int64))]
        assert ask(steady, model, request, thin).slate.rows.tolist() == shown[:10].tolist()
    assert lists.of_segment(stored).rows[:10].tolist() != lists.of_segment(said).rows[:10].tolist()  # type: ignore[union-attr]


def test_a_stranger_gets_what_is_popular_on_the_surface(steady: Pipeline, model: ServingModel) -> None:
    surface = next(name for name in SURFACES if model.bundle.popularity.of_surface(name))
    road = model.bundle.popularity.of_surface(surface)
    assert road is not None
    answer = ask(steady, model, query(surface=surface, diversity_weight=0.0, item_count=10), UserState.unknown())
    shown = road.rows[rows_in(model.catalogue.of_surface(surface), road.rows.astype(np.int64))]
    assert answer.slate.rows.tolist() == shown[:10].tolist()
    assert set(answer.slate.sources.tolist()) == {ItemSource.SURFACE_POPULARITY}


def test_a_request_that_waited_too_long_for_a_thread_makes_no_native_call(
    pipeline: Pipeline, model: ServingModel
) -> None:
    with pytest.raises(DeadlineExceeded):
        pipeline.answer(
            replace(model, catalogue=None),
            query(),
            pipeline.experiments.assign(query()),
            UserState.unknown(),
            clock(-0.001),  # type: ignore[arg-type]
        )


async def test_a_passed_deadline_starts_nothing(pipeline: Pipeline) -> None:
    with pytest.raises(DeadlineExceeded):
        await pipeline.recommend(query(), time.monotonic() + 60, time.monotonic() - 0.001)


def test_every_stage_that_is_timed_is_declared() -> None:
    engine = Path(__file__).resolve().parents[3] / "engine"
    files = (*(engine / "request").glob("*.py"), engine / "rpc" / "servicer.py")
    source = "".join(path.read_text() for path in files)
    timed = set(re.findall(r'(?:measure|attempt|since_mark|finish|StageTiming)\(\s*"(\w+)"', source))
    assert timed == {stage.name for stage in STAGES}
    assert {stage.part for stage in STAGES} == {*BUDGETS_MS, ""}


async def test_stage_times_account_for_the_request(pipeline: Pipeline) -> None:
    answer = await pipeline.recommend(query(), time.monotonic() + 60)
    times = {timing.stage: timing.duration_ms for timing in answer.timings}
    assert sum(value for stage, value in times.items() if stage != "total") <= times["total"]
    assert {
        "features",
        "queue",
        "eligibility",
        "cold_start",
        "randomize",
        "filter",
        "rules",
        "explore",
        "diversify",
        "respond",
    } < set(times)


@pytest.mark.parametrize(("age_s", "counts"), [(1799, True), (1801, False)])
def test_a_session_ends_when_it_has_been_silent_for_long(age_s: int, counts: bool) -> None:
    times = np.array([NOW_MS - 3_000_000, NOW_MS - 1000 * age_s])
    session = Session(np.array([1, 2]), np.array([EventType.CLICK] * 2, np.uint8), times)
    state = UserState(None, session, SeenItems.of(np.array([1]), EventType.VIEW, 5), 7)
    found = state.at(NOW_MS, 1800.0)
    assert len(found.session.item_keys) == (2 if counts else 0)
    assert found.seen.item_keys.tolist() == [1]
    assert found.interaction_count == 7
