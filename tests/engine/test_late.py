"""Requests that run out of time: always an answer, of the right length, of nothing that must not be shown."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.app.model import load_model
from engine.config.serving import EngineConfig
from engine.errors import DeadlineExceeded
from engine.features.state import SeenItems, Session, UserState
from engine.kernels.membership import test_rows as rows_in
from engine.request.model import ServingModel
from engine.request.pipeline import Pipeline
from engine.rules.load import parse_rules
from engine.stages.features import FetchFeatures
from engine.types import (
    DegradedReason,
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
from tests.engine.request.test_pipeline import NOW_MS, SURFACES, query, record

LATE = DegradedReason.BUDGET_EXHAUSTED
# Far longer than any request of these tests may take.
PATIENCE_S = 60.0
CONFIG = EngineConfig.load(holdout={"share": 0.5}, server={"max_concurrent_requests": 8})


@pytest.fixture(scope="module")
def model(trained: Trained) -> ServingModel:
    return load_model(trained.bundles.current(), CONFIG)


@dataclass
class Slowness:
    """What one part of a request does before it goes on: waits for `seconds`, or until it is let go."""

    seconds: float = 0.0
    gate: threading.Event | None = None
    calls: int = 0
    begun: threading.Event = field(default_factory=threading.Event)

    def pass_through(self) -> None:
        self.calls += 1
        self.begun.set()
        time.sleep(self.seconds)
        if self.gate is not None:
            self.gate.wait(PATIENCE_S)


class Store:
    """A feature store that knows one state. asleep_s: how long a read takes; blocks: it holds the event loop."""

    def __init__(self, state: UserState, asleep_s: float = 0.0, block_s: float = 0.0) -> None:
        self.state, self.asleep_s, self.block_s = state, asleep_s, block_s

    async def fetch(self, user_id: str, generation: int) -> UserState:
        time.sleep(self.block_s)
        await asyncio.sleep(self.asleep_s)
        return self.state


class SlowIndex:
    def __init__(self, model: ServingModel, slowness: Slowness) -> None:
        self._index, self._slowness = model.index, slowness
        self.dim, self.item_count = model.index.dim, model.index.item_count

    def search(self, query: Float32Array, k: int, eligible: UInt8Array) -> tuple[Int64Array, Float32Array]:
        self._slowness.pass_through()
        return self._index.search(query, k, eligible)


class SlowRanker:
    def __init__(self, model: ServingModel, slowness: Slowness) -> None:
        self._ranker, self._slowness = model.ranker, slowness

    def score(self, context: RankingContext, rows: Int64Array) -> Float32Array:
        self._slowness.pass_through()
        return self._ranker.score(context, rows)


class World:
    """A pipeline over the real stages, each of which can be slowed down."""

    def __init__(self, model: ServingModel, store: Store, executor: ThreadPoolExecutor) -> None:
        self.search, self.rank = Slowness(), Slowness()
        self.model = replace(model, index=SlowIndex(model, self.search), ranker=SlowRanker(model, self.rank))
        self.executor = executor
        self.pipeline = Pipeline(self.model, FetchFeatures(store, PATIENCE_S, 1 << 20), CONFIG, executor)

    async def ask(self, request: RecommendQuery, within_s: float, deadline_s: float = PATIENCE_S) -> Recommendation:
        now = time.monotonic()
        return await self.pipeline.recommend(request, now + within_s, now + deadline_s)


@contextmanager
def world_of(model: ServingModel, store: Store, threads: int = 1) -> Iterator[World]:
    with ThreadPoolExecutor(threads) as executor:
        world = World(model, store, executor)
        try:
            yield world
        finally:
            for slowness in (world.search, world.rank):
                if slowness.gate is not None:
                    slowness.gate.set()


def known_user(model: ServingModel, seen: Int64Array | None = None) -> UserState:
    ids = () if seen is None else model.bundle.items.ids(seen)
    bought = SeenItems.of(item_keys(ids), EventType.PURCHASE, NOW_MS // 1000)
    return UserState(record(model), Session.empty(), bought)


def hold_threads(world: World) -> threading.Event:
    """Keep every thread busy until the event is set."""
    free = threading.Event()
    begun = [threading.Event() for _ in range(world.executor._max_workers)]

    def hold(event: threading.Event) -> None:
        event.set()
        free.wait(PATIENCE_S)

    for event in begun:
        world.executor.submit(hold, event)
    for event in begun:
        event.wait(PATIENCE_S)
    return free


FAULTS = (
    "features hang",
    "features block the loop",
    "no thread",
    "search is slow",
    "ranking is slow",
    "no time at all",
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_slow_there_is_an_answer_and_it_is_in_order(data: st.DataObject, model: ServingModel) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    fault = data.draw(st.sampled_from(FAULTS))
    item_count = len(model.bundle.items)
    seen = rng.permutation(item_count)[: data.draw(st.integers(0, item_count))]
    excluded = rng.permutation(item_count)[: data.draw(st.integers(0, 300))]
    request = query(
        surface=data.draw(st.sampled_from(SURFACES)),
        item_count=data.draw(st.integers(1, 200)),
        diversity_weight=data.draw(st.sampled_from([None, 0.0, 1.0])),
        exclude_item_ids=(*model.bundle.items.ids(excluded), "never heard of"),
        user_id=f"user-{data.draw(st.integers(0, 20))}",
        debug=data.draw(st.booleans()),
    )
    store = Store(known_user(model, seen))
    with world_of(model, store) as world:
        free = threading.Event()
        match fault:
            case "features hang":
                store.asleep_s = PATIENCE_S
            case "features block the loop":
                store.block_s = 0.05
            case "no thread":
                free = hold_threads(world)
            case "search is slow":
                world.search.seconds = 0.1
            case "ranking is slow":
                world.rank.seconds = 0.1
        try:
            within_s = -1.0 if fault == "no time at all" else 0.02
            answer = asyncio.run(world.ask(request, within_s))
        finally:
            free.set()

    eligible = rows_in(model.catalogue.of_surface(request.surface), np.arange(item_count))
    eligible[excluded] = False
    rows = answer.slate.rows
    assert len(np.unique(rows)) == len(rows) == min(request.item_count, int(eligible.sum()))
    assert eligible[rows].all()
    if DegradedReason.FEATURES_UNAVAILABLE not in answer.degraded_reasons:
        # What was bought comes back where there is too little else, and only then.
        again = np.isin(rows, seen)
        unseen = eligible.copy()
        unseen[seen] = False
        assert int((~again).sum()) == min(request.item_count, int(unseen.sum()))
    assert answer.item_ids == model.bundle.items.ids(rows)
    assert answer.experiments == world.pipeline.experiments.assign(request).experiments
    held_out = answer.experiments[0].variant == "baseline"
    if not (held_out and fault in ("search is slow", "ranking is slow")):  # popularity needs neither
        assert answer.degraded_reasons[-1] is LATE
        assert answer.strategy is Strategy.POPULARITY
        assert {timing.stage for timing in answer.timings} >= {"features", "fallback", "total"}
        assert (np.diff(answer.slate.scores) <= 0).all()
    assert (answer.explanation is not None) == request.debug
    if fault in ("features hang", "no time at all"):
        assert answer.degraded_reasons[0] is DegradedReason.FEATURES_UNAVAILABLE


async def test_many_late_answers_leave_the_event_loop_its_turns(model: ServingModel) -> None:
    turns, done = 0, asyncio.Event()
    answered_in: list[int] = []

    async def turn() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    async def ask(world: World) -> None:
        await world.ask(query(), within_s=-1.0)
        answered_in.append(turns)

    with world_of(model, Store(known_user(model))) as world:
        turning = asyncio.create_task(turn())
        await asyncio.gather(*(ask(world) for _ in range(8)))
        done.set()
        await turning
    assert len(set(answered_in)) == 8


async def test_after_a_stall_of_the_event_loop_what_had_come_meanwhile_counts(model: ServingModel) -> None:
    """The reply of the store arrives while the loop is held up, and its time is over when the loop goes on."""

    class Remote(Store):
        async def fetch(self, user_id: str, generation: int) -> UserState:
            loop = asyncio.get_running_loop()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"?")
            loop.call_soon(time.sleep, 3.0)
            await reader.readexactly(1)
            writer.close()
            return self.state

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"!")
        writer.close()

    listening = threading.Event()
    stop: Callable[[], None]
    port = 0

    def serve() -> None:
        async def run() -> None:
            nonlocal port, stop
            server = await asyncio.start_server(reply, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            ended, loop = asyncio.Event(), asyncio.get_running_loop()
            stop = lambda: loop.call_soon_threadsafe(ended.set)  # noqa: E731
            listening.set()
            await ended.wait()
            server.close()

        asyncio.run(run())

    thread = threading.Thread(target=serve)
    thread.start()
    listening.wait(PATIENCE_S)
    eligible = rows_in(model.catalogue.of_surface("home"), np.arange(len(model.bundle.items)))
    seen = np.flatnonzero(eligible)[::2]
    try:
        with world_of(model, Remote(known_user(model, seen))) as world:
            answer = await world.ask(query(), 2.0)
    finally:
        stop()
        thread.join()
    assert LATE in answer.degraded_reasons
    assert answer.known_user
    assert not set(answer.slate.rows.tolist()) & set(seen.tolist())


async def test_work_that_nobody_waits_for_stops_before_its_next_stage(model: ServingModel) -> None:
    with world_of(model, Store(known_user(model))) as world:
        world.search.gate = threading.Event()
        answer = await world.ask(query(user_id=engine_user(world)), 1.0)
        assert LATE in answer.degraded_reasons
        assert world.search.calls == 1
        world.search.gate.set()
    assert world.rank.calls == 0


async def test_it_stops_as_well_when_the_caller_has_left(model: ServingModel) -> None:
    with world_of(model, Store(known_user(model))) as world:
        world.search.gate = threading.Event()
        task = asyncio.create_task(world.ask(query(user_id=engine_user(world)), PATIENCE_S))
        await asyncio.to_thread(world.search.begun.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        world.search.gate.set()
    assert world.rank.calls == 0


async def test_what_waited_for_a_thread_in_vain_never_runs_and_the_queue_is_bounded(model: ServingModel) -> None:
    limit = CONFIG.server.max_concurrent_requests
    with world_of(model, Store(known_user(model))) as world:
        free = hold_threads(world)
        user = engine_user(world)
        for _ in range(3):
            answers = await asyncio.gather(*(world.ask(query(user_id=user), 0.05) for _ in range(limit)))
            assert all(LATE in answer.degraded_reasons for answer in answers)
            assert world.executor._work_queue.qsize() <= limit
        free.set()
        world.executor.submit(lambda: None).result(PATIENCE_S)
        assert world.search.calls == 0
        # And the places in the queue are there again.
        answer = await world.ask(query(user_id=user), PATIENCE_S)
        assert answer.degraded_reasons == ()
        assert answer.strategy is Strategy.PERSONALIZED


async def test_a_deadline_of_the_callers_own_that_has_passed_is_an_error(model: ServingModel) -> None:
    with world_of(model, Store(known_user(model), block_s=1.0)) as world:
        with pytest.raises(DeadlineExceeded):
            await world.ask(query(), 0.02, 0.5)
        assert world.search.calls == 0


async def test_in_time_nothing_is_said(model: ServingModel) -> None:
    with world_of(model, Store(known_user(model))) as world:
        answer = await world.ask(query(user_id=engine_user(world)), PATIENCE_S)
    assert answer.degraded_reasons == ()
    assert "fallback" not in {timing.stage for timing in answer.timings}


async def test_rules_hold_as_ever(trained: Trained, model: ServingModel) -> None:
    on_home = rows_in(model.catalogue.of_surface("home"), model.bundle.popularity.overall.rows.astype(np.int64))
    popular = model.bundle.items.ids(model.bundle.popularity.overall.rows[on_home].astype(np.int64))
    rules: list[dict[str, Any]] = [
        {"name": "not in Norway", "action": "deny", "items": {"item_ids": popular[:40]}, "when": {"country": ["NO"]}},
        {"name": "first", "action": "pin", "item_id": popular[60], "position": 1},
        {"name": "nowhere", "action": "deny", "items": {"item_ids": popular[40:50]}},
    ]
    parsed = parse_rules(json.dumps({"version": 1, "rules": rules}).encode(), "rules.yaml", SURFACES)
    ruled = load_model(trained.bundles.current(), CONFIG, parsed)
    for country, denied in (("NO", popular[:50]), ("DE", popular[40:50])):
        with world_of(ruled, Store(known_user(ruled))) as world:
            answer = await world.ask(query(country=country), -1.0)
        assert not set(answer.item_ids) & set(denied)
        assert answer.item_ids[0] == popular[60]
        assert answer.slate.sources[0] == ItemSource.PINNED
        assert len(answer.item_ids) == 50
        assert country == "NO" or set(answer.item_ids) & set(popular[:40])


def engine_user(world: World) -> str:
    """Somebody whom the holdout leaves to the engine."""
    return next(
        name
        for name in (f"user-{number}" for number in range(100))
        if world.pipeline.experiments.assign(query(user_id=name)).experiments[0].variant == "engine"
    )
