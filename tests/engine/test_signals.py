"""The whole chain over real sockets: RecordEvents, the log, the processor in a process of its own, Redis, Recommend.

KAFKA_BROKERS and REDIS_URL in the environment choose other servers than the embedded ones.
"""

import asyncio
import datetime
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.app.publish import publish_once
from engine.app.serve import running_server
from engine.config.serving import EngineConfig
from engine_bench.processes import engine_process, write_settings
from engine_client import AsyncRecommendationClient, build_event
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1.event_pb2 import EVENT_TYPE_CLICK, EVENT_TYPE_IMPRESSION, EVENT_TYPE_PURCHASE
from tests.conftest import Trained
from tests.kafka import broker

# A processor starts, joins its group, and shares the machine with the rest of the tests.
_PATIENCE_S = 60.0


@pytest.fixture
def running(trained: Trained, tmp_path: Path) -> Iterator[EngineConfig]:
    """Settings of an engine with its users published and its processor running; the test runs the server."""
    with ExitStack() as resources:
        redis_url = os.environ.get("REDIS_URL") or resources.enter_context(EmbeddedRedis(tmp_path / "redis")).url
        kafka = resources.enter_context(broker(tmp_path / "kafka"))
        settings = write_settings(tmp_path, 0, redis_url, kafka.brokers)
        text = settings.read_text().replace("[kafka]\n", f'[kafka]\ntopic_prefix = "{kafka.topic_prefix}"\n')
        settings.write_text(text)
        # A name of its own, so that what an earlier run has left on shared servers is no news.
        name = f"signals-{time.time_ns()}"
        with settings.open("a") as file:
            file.write(f'[processor]\nlog = "{name}"\ngroup = "{name}"\n')
        config = EngineConfig.load(
            settings,
            server={"host": "127.0.0.1", "port": 0, "request_timeout_ms": 20_000},
            redis={"timeout_ms": 5_000},
            bundle={"directory": trained.bundles.directory},
        )
        publish_once(trained.data, config)
        resources.enter_context(engine_process("process", settings))
        yield config


async def test_a_click_over_grpc_is_in_the_next_slate(trained: Trained, running: EngineConfig) -> None:
    histories = trained.dataset.histories().lengths()
    user = trained.dataset.users["user_id"][int(histories.argmax())]
    async with (
        running_server(running) as server,
        AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        await client.wait_until_serving()

        async def offered() -> list[str]:
            response = await client.recommend(user, "home")
            assert response.strategy == pb.STRATEGY_PERSONALIZED
            assert not response.degraded_reasons
            return [item.item_id for item in response.items]

        before = await offered()
        bought = before[5:8]
        events = [build_event(user, EVENT_TYPE_PURCHASE, item, surface="home", value=1.0) for item in bought]
        events += [build_event(user, EVENT_TYPE_CLICK, item, surface="home") for item in before[:40]]
        recorded = await client.record_events(events, timeout_s=20)
        assert (recorded.accepted_count, len(recorded.rejected)) == (43, 0)
        give_up = time.monotonic() + _PATIENCE_S
        while len(set(before[:40]) & set(after := await offered())) > 10 and time.monotonic() < give_up:
            await asyncio.sleep(0.02)
        # What was bought is gone; of what was just clicked on, a fifth of the slate is left.
        assert not set(bought) & set(after)
        assert len(set(before[:40]) & set(after)) <= 10
        assert len(after) == 50
        # Not the same slate with three gaps filled from behind: the session has moved the query.
        kept = [item for item in before if item not in before[:40]]
        assert [item for item in after if item in kept] != kept[: len(after)]
        # Sending the same events again, as a client does that has missed the answer, changes nothing.
        await client.record_events(events, timeout_s=20)
        assert not set(bought) & set(await offered())


async def test_what_is_shown_again_and_again_is_put_behind_others(trained: Trained, running: EngineConfig) -> None:
    histories = trained.dataset.histories().lengths()
    user = trained.dataset.users["user_id"][int(histories.argmax())]
    async with (
        running_server(running) as server,
        AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        await client.wait_until_serving()

        async def factors() -> dict[str, float]:
            response = await client.recommend(user, "home", debug=True)
            return {item.item_id: item.explanation.seen_factor for item in response.items}

        before = await factors()
        assert set(before.values()) == {1.0}
        shown = list(before)[:10]
        now = datetime.datetime.now(datetime.UTC)
        events = [
            build_event(user, EVENT_TYPE_IMPRESSION, item, surface="home", time=now - datetime.timedelta(seconds=place))
            for place in range(12)
            for item in shown
        ]
        assert (await client.record_events(events, timeout_s=20)).accepted_count == 120
        give_up = time.monotonic() + _PATIENCE_S
        while set((after := await factors()).values()) == {1.0} and time.monotonic() < give_up:
            await asyncio.sleep(0.02)
        assert len(after) == 50
        # Twelve showings, of which five cost nothing.
        tired = {item: factor for item, factor in after.items() if factor < 1}
        assert tired.keys() <= set(shown)
        assert all(abs(factor - 0.5 ** (7 / 5)) < 0.01 for factor in tired.values())
