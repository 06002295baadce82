"""How long after RecordEvents has answered a click shows in Recommend: every part real, in processes of their own."""

import datetime
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.app.model import train_bundle
from engine.app.publish import publish_once
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.data.build import build_dataset
from engine.errors import DeadlineExceeded, DependencyUnavailable
from engine.training.config import RankerConfig, TrainingConfig, TwoTowerConfig
from engine_bench.machine import Progress, describe_machine
from engine_bench.processes import engine_process, wait_until_serving, write_settings
from engine_bench.synthetic.tables import synthesize
from engine_bench.synthetic.world import WorldSize
from engine_bench.targets import Target
from engine_client import RecommendationClient, build_event
from engine_client.v1 import event_pb2, recommendation_pb2

WORLD = WorldSize(items=5_000, users=1_500)
# Enough to have every model in place; how good they are does not matter here.
TRAINING = TrainingConfig(two_tower=TwoTowerConfig(epochs=1), ranker=RankerConfig(epochs=1, max_examples=500))
TARGET_P99_MS = 250.0
SURFACE = "home"
_PATIENCE_S = 10.0
_POLL_S = 0.001


def measure_freshness(event_count: int, port: int, redis_url: str, brokers: str, progress: Progress) -> dict[str, Any]:
    """Click the first item of a slate, again and again, and time how long the item is still offered.

    Args:
        event_count: clicks, by as many users in turn.
        port: to serve on.
        redis_url, brokers: the operator's own; embedded ones where empty.

    Returns:
        `p50_ms`, `p90_ms`, `p99_ms`, `max_ms` from the acknowledgement on, `acknowledge_p50_ms`, the machine, and
        `targets`.

    Raises DependencyUnavailable when a click does not show at all.
    """
    with tempfile.TemporaryDirectory(prefix="engine-freshness-") as scratch, ExitStack() as resources:
        work = Path(scratch)
        tables = synthesize(work / "data", WORLD)
        dataset = build_dataset(tables)
        progress(0, event_count, "clicks")
        train_bundle(dataset, TRAINING, BundleStore(work / "bundles"))
        config_file = write_settings(work, port, redis_url, brokers)
        settings = EngineConfig.load(config_file)
        if not redis_url:
            resources.enter_context(EmbeddedRedis(settings.redis.directory))
        if not brokers:
            resources.enter_context(EmbeddedKafka(settings.kafka.directory, settings.kafka.topic_prefix))
        publish_once(work / "data", settings)
        server = resources.enter_context(engine_process("serve", config_file))
        resources.enter_context(engine_process("process", config_file))
        client = resources.enter_context(RecommendationClient(f"127.0.0.1:{port}", timeout_s=5.0))
        wait_until_serving(client, server)
        active = np.flatnonzero(dataset.histories().lengths() >= settings.cold_start.min_interactions)
        user_ids = [dataset.users["user_id"][int(user)] for user in active]
        acknowledged, reflected = [], []
        for number in range(event_count):
            sent, shown = _click(client, user_ids[number % len(user_ids)])
            acknowledged.append(sent)
            reflected.append(shown)
            progress(number + 1, event_count, "clicks")
    p50, p90, p99 = np.percentile(reflected, [50, 90, 99])
    return {
        "events": event_count,
        "p50_ms": round(float(p50), 2),
        "p90_ms": round(float(p90), 2),
        "p99_ms": round(float(p99), 2),
        "max_ms": round(max(reflected), 2),
        "acknowledge_p50_ms": round(float(np.median(acknowledged)), 2),
        "machine": describe_machine(),
        "targets": [Target("p99_ms", round(float(p99), 2), TARGET_P99_MS, unit="ms").as_json()],
    }


def _click(client: RecommendationClient, user_id: str) -> tuple[float, float]:
    """Milliseconds until the click was acknowledged, and from then until the item was no longer offered."""
    give_up = time.perf_counter() + _PATIENCE_S
    while (response := _recommend(client, user_id)) is None:
        if time.perf_counter() > give_up:
            raise DependencyUnavailable(f"no answer for {user_id} within {_PATIENCE_S:g} s")
    item_id = response.items[0].item_id
    event = build_event(
        user_id,
        event_pb2.EVENT_TYPE_CLICK,
        item_id,
        surface=SURFACE,
        time=datetime.datetime.now(datetime.UTC),
        request_id=response.request_id,
        position=1,
    )
    sent = time.perf_counter()
    client.record_events([event])
    acknowledged = time.perf_counter()
    while True:
        answer = _recommend(client, user_id)
        answered = time.perf_counter()
        if answer is not None and all(item.item_id != item_id for item in answer.items):
            return (acknowledged - sent) * 1000.0, (answered - acknowledged) * 1000.0
        if answered - acknowledged > _PATIENCE_S:
            raise DependencyUnavailable(f"a click of {user_id} was not reflected within {_PATIENCE_S:g} s")
        time.sleep(_POLL_S)


def _recommend(client: RecommendationClient, user_id: str) -> recommendation_pb2.RecommendResponse | None:
    """The slate; None where the server gave up on its own deadline: the click's time goes on meanwhile."""
    try:
        return client.recommend(user_id, SURFACE, item_count=10)
    except DeadlineExceeded:
        return None
