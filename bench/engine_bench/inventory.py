"""How soon every replica follows the catalogue while it answers: stock-outs leave every answer, new items come in."""

import asyncio
import itertools
import json
import shutil
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.config.serving import EngineConfig
from engine_bench.machine import Progress, describe_machine
from engine_bench.processes import engine_process, wait_until_serving, write_settings
from engine_bench.targets import Target
from engine_bench.world import build_world, publish_world, world_bundle
from engine_client import AsyncRecommendationClient, RecommendationClient
from engine_client.v1 import catalog_pb2

TARGET_MS = 2_000.0
STOCK_OUTS, NEW_ITEMS, REPLICAS, WORKERS = 200, 100, 2, 4
_EVERY_S = 0.1
# After the last change: what should be gone must stay gone, and is watched for as long.
_WATCH_S = 5.0
_TIMEOUT_S = 5.0
_BATCH = 100
_READY = "bench-ready"


@dataclass
class Watch:
    """What the answers of all replicas have held, and when. Times are time.perf_counter() seconds."""

    gone_at: dict[str, float] = field(default_factory=dict)
    last_seen: dict[str, float] = field(default_factory=dict)
    late_answers: int = 0
    added_at: dict[str, float] = field(default_factory=dict)
    first_seen: dict[tuple[str, int], float] = field(default_factory=dict)
    answers: int = 0
    short: int = 0
    failed: int = 0
    popular: list[str] = field(default_factory=list)

    def answered(self, replica: int, asked: float, wanted: int, item_ids: list[str]) -> None:
        now = time.perf_counter()
        self.answers += 1
        self.short += len(item_ids) < wanted
        for item_id in item_ids:
            gone = self.gone_at.get(item_id)
            if gone is not None and now > gone:
                self.last_seen[item_id] = now
                self.late_answers += asked - gone > TARGET_MS / 1000
            if item_id in self.added_at:
                self.first_seen.setdefault((item_id, replica), now)


def measure_inventory(
    item_count: int, new_item_count: int, port: int, cache: Path, progress: Progress
) -> dict[str, Any]:
    """Two servers over one Redis, asked all the time; items sell out and come in while they answer.

    Args:
        item_count: of the synthetic catalogue, whose bundle is kept in `cache`.
        new_item_count: new items that are there before the clock starts.
        port: of the first server; the second takes the next.

    Returns:
        `p50_ms`, `p99_ms`, `max_ms` from the acknowledgement of a stock-out until the last answer with the item had
        arrived (0 where none did), `late_answers` of those asked for 2 s after it or later, the same for the first
        answer with a new item, `answers` and what went wrong with them, the machine, and `targets`.
    """
    dataset, vectors = build_world(item_count)
    directory = (cache / f"bundles-{item_count}").resolve()
    bundle = world_bundle(directory, dataset, vectors)
    work = cache.resolve() / "inventory"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        with ExitStack() as resources:
            redis = resources.enter_context(EmbeddedRedis(work / "redis"))
            publish_world(bundle, dataset, vectors, redis.url)
            rules = work / "rules.yaml"
            rules.write_text(_pins())
            ports = [port + replica for replica in range(REPLICAS)]
            for number in ports:
                home = work / str(number)
                home.mkdir()
                (home / "bundles").symlink_to(directory)
                config_file = write_settings(home, number, redis.url)
                with config_file.open("a") as file:
                    file.write(f"[rules]\nfile = {json.dumps(str(rules))}\n")
                server = resources.enter_context(engine_process("serve", config_file))
                with RecommendationClient(f"127.0.0.1:{number}", timeout_s=_TIMEOUT_S) as client:
                    wait_until_serving(client, server)
            active = dataset.histories().lengths() >= EngineConfig().cold_start.min_interactions
            users = [str(name) for name in dataset.users["user_id"].to_numpy()[active]]
            watch = asyncio.run(_run(ports, users, new_item_count, progress))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _report(watch, item_count, new_item_count)


def _pins() -> str:
    """On one surface each new item has a place of its own: the first answer that can hold it does."""
    pins = [
        {"name": item_id, "action": "pin", "surfaces": ["email"], "item_id": item_id, "position": position}
        for position, item_id in enumerate([*map(_new, range(NEW_ITEMS)), _READY], start=1)
    ]
    return json.dumps({"version": 1, "rules": pins})


def _new(number: int) -> str:
    return f"bench-new-{number}"


async def _run(ports: list[int], users: list[str], new_item_count: int, progress: Progress) -> Watch:
    watch, stop = Watch(), asyncio.Event()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncRecommendationClient(f"127.0.0.1:{port}", timeout_s=_TIMEOUT_S))
            for port in ports
        ]
        for start in range(0, new_item_count, _BATCH):
            items = [
                catalog_pb2.Item(item_id=f"bench-filler-{number}", title=f"filler {number}")
                for number in range(start, min(start + _BATCH, new_item_count))
            ]
            await clients[0].upsert_items(items)
            progress(start + len(items), new_item_count, "new items")
        # Its turn comes after all the others'.
        await clients[0].upsert_items([catalog_pb2.Item(item_id=_READY, title=_READY)])
        for client in clients:
            while _READY not in await _email(client, "stranger"):
                await asyncio.sleep(0.05)
        asking = [asyncio.create_task(_ask(clients, users, worker, watch, stop)) for worker in range(WORKERS)]
        while not watch.popular:
            await asyncio.sleep(0.05)
        for number in range(STOCK_OUTS):
            item_id = next(item for item in watch.popular if item not in watch.gone_at)
            await clients[number % REPLICAS].update_inventory({item_id: False})
            watch.gone_at[item_id] = time.perf_counter()
            if number % (STOCK_OUTS // NEW_ITEMS) == 0:
                new = _new(number // (STOCK_OUTS // NEW_ITEMS))
                await clients[number % REPLICAS].upsert_items([catalog_pb2.Item(item_id=new, title=new)])
                watch.added_at[new] = time.perf_counter()
            progress(number + 1, STOCK_OUTS, "stock-outs")
            await asyncio.sleep(_EVERY_S)
        await asyncio.sleep(_WATCH_S)
        stop.set()
        await asyncio.gather(*asking)
    return watch


async def _email(client: AsyncRecommendationClient, user: str) -> list[str]:
    response = await client.recommend(user, "email", item_count=NEW_ITEMS + 1)
    return [item.item_id for item in response.items]


async def _ask(
    clients: list[AsyncRecommendationClient], users: list[str], worker: int, watch: Watch, stop: asyncio.Event
) -> None:
    """Ask every replica in turn, for known and unknown users, on a surface of popular items and one of pins."""
    rounds = itertools.count(worker)
    while not stop.is_set():
        number = next(rounds)
        replica, surface = number % len(clients), ("home", "email")[number // 2 % 2]
        user = users[number % len(users)] if number % 3 else f"stranger-{number % 50}"
        wanted = NEW_ITEMS if surface == "email" else 50
        asked = time.perf_counter()
        try:
            response = await clients[replica].recommend(user, surface, item_count=wanted)
        except Exception:  # counted, and reported: a failed request is a result here
            watch.failed += 1
            continue
        item_ids = [item.item_id for item in response.items]
        watch.answered(replica, asked, wanted, item_ids)
        if surface == "home":
            watch.popular = item_ids


def _report(watch: Watch, item_count: int, new_item_count: int) -> dict[str, Any]:
    gone = [max(0.0, watch.last_seen.get(item, at) - at) * 1000 for item, at in watch.gone_at.items()]
    shown = [
        (max(watch.first_seen.get((item, replica), np.inf) for replica in range(REPLICAS)) - at) * 1000
        for item, at in watch.added_at.items()
    ]
    figures = {
        "p50_ms": float(np.percentile(gone, 50)),
        "p99_ms": float(np.percentile(gone, 99)),
        "max_ms": max(gone),
        "new_item_p50_ms": float(np.percentile(shown, 50)),
        "new_item_p99_ms": float(np.percentile(shown, 99)),
        "new_item_max_ms": max(shown),
    }
    figures = {name: round(value, 2) for name, value in figures.items()}
    targets = [
        *(Target(name, figures[name], TARGET_MS, unit="ms") for name in ("p99_ms", "new_item_p99_ms")),
        Target("late_answers", watch.late_answers, 0),
    ]
    return {
        "items": item_count,
        "fresh_items": new_item_count,
        "replicas": REPLICAS,
        "stock_outs": len(gone),
        "new_items": len(shown),
        **figures,
        "late_answers": watch.late_answers,
        "answers": watch.answers,
        "short_answers": watch.short,
        "failed_requests": watch.failed,
        "machine": describe_machine(),
        "targets": [target.as_json() for target in targets],
    }
