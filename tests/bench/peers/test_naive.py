"""The straightforward wiring answers as the engine does: in the process, and through its gRPC service."""

from pathlib import Path

import numpy as np
import pytest
import redis

from engine.app.serve import open_pipeline
from engine.config.serving import BlendConfig, EngineConfig
from engine.features.seen import read_seen
from engine.features.session import SessionSettings, session_signal
from engine.features.state import Session
from engine.types import EventType, RecommendQuery, item_key
from engine_bench.child import port_printing
from engine_bench.load_target import ITEM_COUNT, SURFACE
from engine_bench.peers.naive import Naive, NaiveRequest, session_mean
from engine_client import AsyncRecommendationClient
from tests.bench.peers.conftest import Small

USERS = 12


@pytest.fixture(scope="module")
def naive(small: Small) -> Naive:
    return Naive(small.bundle.path, small.settings.tiled)


def asked(small: Small, user_id: str, **fields: object) -> NaiveRequest:
    return NaiveRequest(user_id, SURFACE, ITEM_COUNT, small.time_ms, "mobile", "DE", **fields)  # type: ignore[arg-type]


def answer(naive: Naive, small: Small, question: NaiveRequest) -> list[tuple[str, float]]:
    with redis.Redis.from_url(small.settings.redis_url) as client:
        return naive.answer(question, [client.get(key) for key in naive.keys(question.user_id)])


def test_a_session_in_numpy_is_what_the_kernel_makes_of_it() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((50, 8)).astype(np.float32)
    settings = SessionSettings.of(BlendConfig())
    now_ms = 1_750_000_000_000
    for count in (0, 1, 20):
        rows = draw.integers(-1, 50, count)
        kinds = draw.integers(0, 6, count).astype(np.uint8)
        session = Session(np.zeros(count, np.int64), kinds, now_ms - draw.integers(0, 2_500_000, count))
        mean, evidence, dense = session_mean(vectors, rows, session, now_ms, settings)
        signal = session_signal(rows, kinds, session.timestamps_ms, vectors, now_ms, settings)
        np.testing.assert_allclose(mean, signal.vector, atol=1e-5)
        np.testing.assert_allclose(evidence, signal.evidence, rtol=1e-5)
        np.testing.assert_allclose(dense, signal.dense, rtol=1e-5)


async def test_slates_are_those_of_the_engine(small: Small, naive: Naive, tmp_path: Path) -> None:
    config = EngineConfig.load(
        redis={"url": small.settings.redis_url, "timeout_ms": 5_000}, bundle={"directory": small.bundles},
        kafka={"directory": tmp_path},
        # The straightforward wiring knows no near-duplicates.
        surfaces={SURFACE: {"duplicate_similarity": 2.0}},
    )  # fmt: skip
    async with open_pipeline(config) as pipeline:
        for user_id in small.user_ids[:USERS]:
            query = RecommendQuery(user_id, SURFACE, ITEM_COUNT, small.time_ms, "mobile", "DE")
            served = await pipeline.recommend(query, float("inf"))
            slate = answer(naive, small, asked(small, user_id))
            assert not served.degraded_reasons
            # Items that are as good as each other may change places: sums are taken in another order.
            same = sum(ours == theirs for ours, (theirs, _) in zip(served.item_ids, slate, strict=True))
            assert same >= ITEM_COUNT - 4
            assert slate[0][1] == pytest.approx(float(served.slate.scores[0]), rel=1e-3)


def test_only_eligible_items_and_as_many_as_asked_for(small: Small, naive: Naive) -> None:
    table = small.bundle.items.table.to_pylist()
    shown = {row["item_id"] for row in table if row["in_stock"] is not False and _on(row["surfaces"])}
    with redis.Redis.from_url(small.settings.redis_url) as client:
        for user_id in small.user_ids[:USERS]:
            past = read_seen(client.get(naive.keys(user_id)[2]))
            bought = past.event_types == EventType.PURCHASE
            hidden = bought & (past.times_s > small.time_ms // 1000 - 30 * 86_400)
            seen = set(past.item_keys[hidden].tolist())
            first = [item_id for item_id, _ in answer(naive, small, asked(small, user_id))]
            excluded = frozenset(first[:10])
            again = [item_id for item_id, _ in answer(naive, small, asked(small, user_id, excluded=excluded))]
            for slate in (first, again):
                assert len(set(slate)) == ITEM_COUNT
                assert set(slate) <= shown
                assert not {item_key(item_id) for item_id in slate} & seen
            assert not set(again) & excluded


def test_a_stranger_gets_what_is_popular(small: Small, naive: Naive) -> None:
    slate = answer(naive, small, asked(small, "nobody"))
    assert len({item_id for item_id, _ in slate}) == ITEM_COUNT


def _on(surfaces: str | None) -> bool:
    return not surfaces or SURFACE in surfaces.split("|")


async def test_the_service_answers_over_grpc(small: Small, naive: Naive) -> None:
    module, told = "engine_bench.peers.naive_server", small.settings.text()
    with port_printing(module, told) as (_, address):
        async with AsyncRecommendationClient(address, timeout_s=20) as client:
            for user_id in (small.user_ids[0], "nobody"):
                response = await client.recommend(
                    user_id, SURFACE, item_count=ITEM_COUNT, time=small.now, device="mobile", country="DE"
                )
                slate = answer(naive, small, asked(small, user_id))
                assert [item.item_id for item in response.items] == [item_id for item_id, _ in slate]
                assert [item.position for item in response.items] == list(range(1, ITEM_COUNT + 1))
                assert response.bundle_version == small.bundle.version
