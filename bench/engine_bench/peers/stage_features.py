"""Stage features: the engine's feature store against the pipeline of reads that comes to mind first."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import redis.asyncio

from engine.adapters.redis.keys import live_key, past_key, record_key
from engine.adapters.redis.store import RedisFeatureStore
from engine.features.record import unpack_record
from engine.features.seen import read_seen
from engine.stream.state import view_state
from engine_bench.timing import percentiles

_CALLS_IN_A_ROW = 20


async def measure_features(
    store: RedisFeatureStore,
    url: str,
    generation: int,
    user_ids: Sequence[str],
    calls: int,
    progress: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """The rows of the report: one user after the other, in turns, over the same Redis."""
    client = redis.asyncio.Redis.from_url(url)

    async def pipelined(user_id: str) -> object:
        async with client.pipeline(transaction=False) as pipeline:
            for key in (record_key(user_id, generation), live_key(user_id), past_key(user_id)):
                pipeline.get(key)
            record, live, seen = await pipeline.execute()
        return unpack_record(record), view_state(live), read_seen(seen)

    async def fetched(user_id: str) -> object:
        return await store.fetch(user_id, generation)

    readers: dict[str, Callable[[str], Awaitable[object]]] = {"engine": fetched, "redis-py": pipelined}
    took = {name: np.empty(calls) for name in readers}
    try:
        for start in range(0, calls, _CALLS_IN_A_ROW):
            for name, read in readers.items():
                await read(user_ids[start % len(user_ids)])
                for call in range(start, min(start + _CALLS_IN_A_ROW, calls)):
                    began = time.perf_counter()
                    await read(user_ids[call % len(user_ids)])
                    took[name][call] = (time.perf_counter() - began) * 1000.0
            progress(min(start + _CALLS_IN_A_ROW, calls), calls)
    finally:
        await client.aclose()
    described = {
        "engine": ("the feature store: one MGET of five keys", {"reads": 5}),
        "redis-py": ("pooled asyncio client, a pipeline of three reads", {"reads": 3}),
    }
    return [
        {"stage": "features", "name": name, "title": title, **percentiles(took[name]), "parameters": parameters}
        for name, (title, parameters) in described.items()
    ]
