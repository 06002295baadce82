"""The engine against its peers, in one run: same machine, same bundle, same users, same schedules."""

import asyncio
import datetime
import gc
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.store import RedisFeatureStore
from engine.app.model import load_model
from engine.bundle.bundle import Bundle, open_bundle
from engine.config.serving import EngineConfig
from engine.errors import DependencyUnavailable
from engine_bench.load_driver import Arrivals
from engine_bench.load_report import require_histogram
from engine_bench.load_world import publish_crowd
from engine_bench.machine import Progress, describe_machine
from engine_bench.peers.report import LIBRARIES, targets
from engine_bench.peers.sample import stage_inputs
from engine_bench.peers.service_runs import measure_services
from engine_bench.peers.services import TITLES, Surroundings, reason_to_skip, running
from engine_bench.peers.settings import PeerSettings
from engine_bench.peers.stage_diversify import measure_diversify
from engine_bench.peers.stage_features import measure_features
from engine_bench.peers.stage_rank import measure_rank
from engine_bench.peers.stage_retrieve import measure_retrieve
from engine_bench.peers.tiled import TiledRanker
from engine_bench.peers.tiled_export import export_tiled
from engine_bench.world import build_world, world_bundle, world_ranker

# Whose requests the stages are measured with, and how many calls of each contestant are timed.
_STAGE_USERS = 128
_CALLS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerBench:
    """What to measure.

    items, users: of the synthetic world. seconds: of one run of a search, and of each of four unloaded rounds.
    repeats: of each found rate. skip: peers to leave out, by name.
    """

    items: int = 1_000_000
    users: int = 100_000
    seconds: float = 10.0
    repeats: int = 3
    arrivals: Arrivals = "poisson"
    skip: tuple[str, ...] = ()
    seed: int = 0


def measure_peers(settings: PeerBench, port: int, cache: Path, progress: Progress) -> dict[str, Any]:
    """Measure stages one by one in this process, then whole services from it.

    Args:
        port: of the engine; mosec serves on the next one.
        cache: keeps the synthetic bundle, the tiled graph and the peers' indexes for the next time.

    Returns:
        machine, items, settings, services, stages, targets, and the generator's ceiling. A peer that was left out has
        its reason under `skipped`.

    Raises ConfigError without the package hdrhistogram, DependencyUnavailable when the engine or the straightforward
    wiring does not come up, BundleError when the tiled graph is not the bundle's ranker.
    """
    require_histogram()
    cache = cache.resolve()
    work = cache / f"peers-{port}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    now = datetime.datetime.now(datetime.UTC)
    time_ms = int(now.timestamp() * 1000)
    try:
        with ExitStack() as resources:
            redis = resources.enter_context(EmbeddedRedis(work / "redis"))
            directory, tiled, user_ids = _prepare(settings, cache, work, redis.url, time_ms, progress)
            bundle = open_bundle(directory, verify=False)
            stages = asyncio.run(_stages(settings, cache, bundle, tiled, redis.url, user_ids, time_ms, progress))
            around = Surroundings(
                work, port, PeerSettings(directory, tiled, redis.url), now, user_ids[0], settings.skip
            )
            services, ceiling = _services(settings, around, user_ids, progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "machine": describe_machine(LIBRARIES),
        "items": settings.items,
        "settings": asdict(settings),
        "ceiling_per_s": ceiling,
        "services": services,
        "stages": stages,
        # The key by which earlier files named the direction stays beside the one that all files have.
        "targets": [
            each.as_json() | {"higher_is_better": each.direction == "at least"} for each in targets(services, stages)
        ],
    }


def _prepare(
    settings: PeerBench, cache: Path, work: Path, redis_url: str, time_ms: int, progress: Progress
) -> tuple[Path, Path, list[str]]:
    """Bundle, tiled graph and users; a function of its own, so that the world's memory is free afterwards."""
    progress(0, settings.users, "publish")
    dataset, vectors = build_world(settings.items)
    directory = cache / f"bundles-{settings.items}"
    bundle = world_bundle(directory, dataset, vectors)
    (work / "bundles").symlink_to(directory)
    tiled = cache / f"tiled-{settings.items}-{bundle.version}.onnx"
    if not tiled.exists():
        # The bundle does not keep the network that its graph was exported from; trained again it is the same one.
        unfinished = tiled.with_suffix(".unfinished")
        export_tiled(world_ranker(dataset, vectors), bundle, unfinished)
        unfinished.rename(tiled)
    user_ids = publish_crowd(
        bundle,
        dataset,
        vectors,
        redis_url,
        settings.users,
        time_ms,
        lambda done, total: progress(done, total, "publish"),
    )
    return bundle.path, tiled, user_ids


async def _stages(
    settings: PeerBench,
    cache: Path,
    bundle: Bundle,
    tiled: Path,
    redis_url: str,
    user_ids: Sequence[str],
    time_ms: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    config = EngineConfig()
    model = load_model(bundle.path, config)
    store = RedisFeatureStore(redis_url, config.redis)

    def told(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(done, total, stage)

    try:
        generation = bundle.manifest.generation
        features = await measure_features(store, redis_url, generation, user_ids, _CALLS, told("features"))
        asking = [user_ids[place] for place in np.linspace(0, len(user_ids) - 1, _STAGE_USERS).astype(int)]
        inputs = await stage_inputs(model, store, asking, time_ms, config)
    finally:
        await store.close()
    ranker = TiledRanker(tiled, bundle.item_table, bundle.item_dynamic)
    rank = measure_rank(model.ranker, ranker, inputs, _CALLS, told("rank"))
    diversify = measure_diversify(inputs, _CALLS, settings.skip, told("diversify"))
    queries = np.stack([each.query for each in inputs])
    retrieve = measure_retrieve(bundle, queries, cache, _CALLS, settings.skip, progress)
    return [*features, *retrieve, *rank, *diversify]


def _services(
    settings: PeerBench, around: Surroundings, user_ids: Sequence[str], progress: Progress
) -> tuple[list[dict[str, Any]], float]:
    skipped = {name: reason for name in TITLES if (reason := reason_to_skip(name, around.skip))}
    with ExitStack() as resources:
        started = []
        for done, name in enumerate(TITLES):
            progress(done, len(TITLES), "start services")
            if name in skipped:
                continue
            try:
                started.append(resources.enter_context(running(name, around)))
            except DependencyUnavailable as error:
                # Without these two there is nothing to compare; a library that does not start here is left out.
                if name in ("engine", "naive"):
                    raise
                skipped[name] = str(error)
        progress(len(TITLES), len(TITLES), "start services")
        # Nothing of what is here by now can become garbage; scanning it would make requests late.
        gc.collect()
        gc.freeze()
        try:
            rows, ceiling = uvloop.run(
                measure_services(
                    started, user_ids, settings.arrivals, settings.seconds, settings.repeats, settings.seed, progress
                )
            )
        finally:
            gc.unfreeze()
    return [
        *rows,
        *({"name": name, "title": TITLES[name], "skipped": reason} for name, reason in skipped.items()),
    ], ceiling
