"""How many events a second one processor applies to a real Redis, from a real consumer group."""

import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer

from engine.adapters.kafka.bus import producer_settings
from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.kafka.topics import create_topics
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.state import RedisLiveStore
from engine.app.dependencies import log_name
from engine.config.serving import EngineConfig
from engine.contract.events import encode
from engine.stream.topics import EVENTS
from engine.types import EventType
from engine_bench.machine import Progress, describe_machine
from engine_bench.processes import engine_process, write_settings
from engine_bench.targets import Target
from engine_client.v1 import event_pb2 as pb

TARGET_EVENTS_PER_S = 20_000.0
ITEMS = 50_000
SEED = 0
# Applied before the clock starts: joining the group and the first, cold batches are not what is measured.
_WARM_UP_EVENTS = 20_000
# The embedded broker keeps 5 MB a partition: the producer may be ahead of the processor by no more than this.
_AHEAD_EVENTS = 60_000
_CHUNK = 5_000
_POLL_S = 0.02
_TYPES = (EventType.IMPRESSION, EventType.VIEW, EventType.CLICK, EventType.CART, EventType.PURCHASE)
_TYPE_WEIGHTS = (10, 40, 40, 6, 4)


def measure_processor(
    event_count: int, user_count: int, redis_url: str, brokers: str, progress: Progress
) -> dict[str, Any]:
    """Feed `event_count` events of `user_count` users to one `engine process`, and time it.

    Nearline vectors and the archive are off: what is measured is the state that requests read. Events are encoded
    before the clock starts; the feeding shares the machine with what is measured.

    Returns `events_per_s`, the seconds, the machine, and `targets`; and what an event takes of a core, which depends
    less on what else runs on the machine: `processor_cpu_us`, and `redis_cpu_us` where Redis is this bench's own.
    """
    with tempfile.TemporaryDirectory(prefix="engine-processor-") as scratch, ExitStack() as resources:
        work = Path(scratch)
        config_file = write_settings(work, 0, redis_url, brokers)
        with config_file.open("a") as file:
            file.write("[processor]\nfresh_users_per_s = 0\n")
        config = EngineConfig.load(config_file)
        if not brokers:
            brokers = resources.enter_context(EmbeddedKafka(config.kafka.directory, config.kafka.topic_prefix)).brokers
        else:
            create_topics(brokers, config.kafka)
        measured: dict[str, psutil.Process] = {}
        if not redis_url:
            server = resources.enter_context(EmbeddedRedis(config.redis.directory))
            redis_url = server.url
            measured["redis"] = psutil.Process(server.pid)
        messages = list(_messages(event_count + _WARM_UP_EVENTS, user_count, progress))
        store = resources.enter_context(
            closing(RedisLiveStore(redis_url, config.redis, config.processor, log_name(config, brokers), lambda: None))
        )
        before = _applied(store)
        processor = resources.enter_context(engine_process("process", config_file))
        measured["processor"] = psutil.Process(processor.pid)
        applied, stop = [0], threading.Event()
        feeder = threading.Thread(target=_feed, args=(brokers, config, messages, applied, stop))
        feeder.start()
        try:
            started_at, started, cpu_s = 0, 0.0, dict.fromkeys(measured, 0.0)
            while applied[0] < len(messages):
                time.sleep(_POLL_S)
                applied[0] = _applied(store) - before
                if not started and applied[0] >= _WARM_UP_EVENTS:
                    started_at, started = applied[0], time.perf_counter()
                    cpu_s = {name: _cpu_s(process) for name, process in measured.items()}
                progress(applied[0], len(messages), "apply")
            seconds = time.perf_counter() - started
            cpu_s = {name: _cpu_s(process) - cpu_s[name] for name, process in measured.items()}
        finally:
            stop.set()
            feeder.join()
    counted = len(messages) - started_at
    rate = counted / seconds
    return {
        "events": counted,
        "users": user_count,
        "seconds": round(seconds, 2),
        "events_per_s": round(rate),
        **{f"{name}_cpu_us": round(used_s / counted * 1e6, 1) for name, used_s in cpu_s.items()},
        "machine": describe_machine(),
        "targets": [Target("events_per_s", round(rate), TARGET_EVENTS_PER_S, "at least", "1/s").as_json()],
    }


def _messages(count: int, users: int, progress: Progress) -> Iterator[tuple[bytes, bytes]]:
    """Keys and payloads of events in time order, the latest of them now."""
    draw = random.Random(SEED)
    start_ms = time.time_ns() // 1_000_000 - count
    kinds = draw.choices(_TYPES, _TYPE_WEIGHTS, k=count)
    for number, kind in enumerate(kinds):
        user = f"user-{draw.randrange(users)}"
        # Popularity falls off as it does in life: low numbers come up much more often.
        event = pb.Event(
            event_id=f"{number:032x}",
            user_id=user,
            item_id=f"item-{int(ITEMS * draw.random() ** 3)}",
            type=kind + 1,  # type: ignore[arg-type]
            surface="home",
        )
        event.time.FromMilliseconds(start_ms + number)
        if kind is EventType.PURCHASE:
            event.value = 10.0
        yield user.encode(), encode(event, start_ms + number)
        if number % _CHUNK == 0:
            progress(number, count, "encode")
    progress(count, count, "encode")


def _feed(
    brokers: str,
    config: EngineConfig,
    messages: list[tuple[bytes, bytes]],
    applied: list[int],
    stop: threading.Event,
) -> None:
    producer = Producer(producer_settings(brokers, config.kafka))
    for start in range(0, len(messages), _CHUNK):
        while start - applied[0] > _AHEAD_EVENTS:
            if stop.wait(_POLL_S):
                return
        for key, payload in messages[start : start + _CHUNK]:
            producer.produce(config.kafka.named(EVENTS.name), payload, key)
        producer.flush()


def _cpu_s(process: psutil.Process) -> float:
    """Seconds of a core that a process has had."""
    used = process.cpu_times()
    return float(used.user + used.system)


def _applied(store: RedisLiveStore) -> int:
    """Events applied over all partitions."""
    return sum(place.next for place in store.applied(range(EVENTS.partitions)).values() if place is not None)
