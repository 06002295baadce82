"""What the benchmarks share: catalogues of vectors and worlds that serve, made once and kept under .benchmarks/.

BENCH_ITEMS lists the catalogue sizes, `100000,1000000` by default. What takes long to make is kept on disk; what takes
memory is made once a size, for all benchmarks of that size.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engine.types import Float32Array
from engine_bench.machine import describe_machine
from engine_bench.synthetic.world import World, WorldSize
from engine_bench.targets import request_targets, short
from tests.contracts.clustered import clustered

if TYPE_CHECKING:
    # With all that they bring, PyTorch among it, these take seconds: not for who measures a kernel.
    from engine.adapters.faiss.build import IndexParameters
    from suite.serving import PublishedWorld, Serving

ITEM_COUNTS = sorted(int(count) for count in os.environ.get("BENCH_ITEMS", "100000,1000000").split(","))
QUERY_COUNT = 512  # the first half calibrates the index, the second half is measured
CACHE = Path(__file__).parents[2] / ".benchmarks"
CROWD = 2_000
# Records have read everything up to the end of the data; sessions come after it, so that they are there to be mixed in.
SESSIONS_AFTER_MS = 600_000
# A p99 of fewer rounds than this is a guess.
P99_ROUNDS = 200
# What a processor says of its clock at this moment: no two runs agree.
UNSTEADY_CPU_INFO = ("hz_actual", "hz_actual_friendly")


@pytest.fixture(scope="session", params=ITEM_COUNTS, ids=short)
def item_count(request: pytest.FixtureRequest) -> int:
    """The size of the catalogue; benchmarks of one size run together."""
    return int(request.param)


@dataclass(frozen=True)
class Catalogue:
    """Item vectors (mapped), queries that calibration never saw, and the index file with its parameters."""

    vectors: Float32Array
    queries: Float32Array
    index_path: Path
    parameters: "IndexParameters"


@pytest.fixture(scope="session", params=["synthetic", "clustered"])
def catalogue(request: pytest.FixtureRequest, item_count: int) -> Catalogue:
    """Unit vectors of 64 and an index over them, built on one thread.

    synthetic: the latent vectors of the synthetic world, searched with what its users are after.
    clustered: harder, isotropic clusters of 500 with a wide spread, so that the top 1000 spans several of them.
    """
    return _catalogue(request.param, item_count, 64)


@pytest.fixture(scope="session", params=[64, 128], ids=lambda dim: f"dim{dim}")
def catalogue_of_dim(request: pytest.FixtureRequest, item_count: int) -> Catalogue:
    """The synthetic one with vectors of this length."""
    return _catalogue("synthetic", item_count, request.param)


def _catalogue(kind: str, item_count: int, dim: int) -> Catalogue:
    from engine.adapters.faiss.build import IndexParameters, build_index

    directory = CACHE / f"{kind}-{item_count}x{dim}"
    files = [directory / name for name in ("vectors.npy", "queries.npy", "index.faiss", "parameters.json")]
    vectors_path, queries_path, index_path, parameters_path = files
    if not parameters_path.exists():  # written last, so that an interrupted build starts over
        directory.mkdir(parents=True, exist_ok=True)
        make = _synthetic if kind == "synthetic" else _clustered
        vectors, queries = make(item_count, dim)
        np.save(vectors_path, vectors)
        np.save(queries_path, queries)
        built = build_index(vectors, index_path, queries=queries[: QUERY_COUNT // 2])
        parameters_path.write_text(built.model_dump_json(indent=2))
    return Catalogue(
        np.load(vectors_path, mmap_mode="r"),
        np.load(queries_path)[QUERY_COUNT // 2 :],
        index_path,
        IndexParameters.model_validate(json.loads(parameters_path.read_text())),
    )


def _synthetic(item_count: int, dim: int) -> tuple[Float32Array, Float32Array]:
    world = World(WorldSize(items=item_count, users=QUERY_COUNT, dim=dim), seed=0)
    times_ms = np.full(QUERY_COUNT, world.size.end_ms)
    intents, _ = world.intents(np.arange(QUERY_COUNT), times_ms, np.random.default_rng(0))
    return world.item_latents, intents


def _clustered(item_count: int, dim: int) -> tuple[Float32Array, Float32Array]:
    return clustered(item_count, dim, QUERY_COUNT, seed=0)


@pytest.fixture(scope="session")
def world(item_count: int) -> "PublishedWorld":
    from engine_bench.world import build_world, world_bundle
    from suite.serving import PublishedWorld

    dataset, vectors = build_world(item_count)
    return PublishedWorld(dataset, vectors, world_bundle(CACHE / f"bundles-{item_count}", dataset, vectors))


@pytest.fixture(scope="session")
def serving(world: "PublishedWorld", tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Serving]":
    """The world, served with a real Redis, with the rules and the sessions of the load bench."""
    from engine.adapters.redis.embedded import EmbeddedRedis
    from engine.config.serving import EngineConfig
    from engine_bench.load_world import publish_crowd, write_rules
    from suite.serving import Serving

    home = tmp_path_factory.mktemp("serving")
    rules = home / "rules.yaml"
    write_rules(rules, world.dataset)
    now_ms = world.bundle.manifest.data_end_ms + SESSIONS_AFTER_MS
    with EmbeddedRedis(home) as server:
        config = EngineConfig.load(
            bundle={"directory": world.bundle.path.parent},
            redis={"url": server.url, "timeout_ms": 1000},
            server={"compute_threads": 1},
            rules={"file": rules},
        )
        user_ids = publish_crowd(
            world.bundle, world.dataset, world.vectors, server.url, CROWD, now_ms, lambda done, total: None
        )
        yield Serving(world, config, user_ids, now_ms)


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Beside pytest-benchmark's own: the libraries, without what is another one each time."""
    for name in UNSTEADY_CPU_INFO:
        machine_info["cpu"].pop(name, None)
    machine_info["engine"] = {
        name: value for name, value in describe_machine().items() if name not in ("commit", "date")
    }


def pytest_benchmark_update_json(benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """Adds what the report needs: percentiles of each benchmark, the machine, and which targets are met."""
    for bench in output_json["benchmarks"]:
        stats = bench["stats"]
        # As many numbers as there were rounds: megabytes of which nothing is left to learn.
        seconds = stats.pop("data", None) or next(b.stats.data for b in benchmarks if b.fullname == bench["fullname"])
        bench["extra_info"]["p50_ms"] = round(stats["median"] * 1000, 4)
        if stats["rounds"] >= P99_ROUNDS:
            bench["extra_info"]["p99_ms"] = round(float(np.percentile(seconds, 99)) * 1000, 4)
    requests = {
        bench["extra_info"]["items"]: bench["extra_info"]
        for bench in output_json["benchmarks"]
        if bench["name"].startswith("test_request[")
    }
    output_json["machine"] = describe_machine()
    output_json["targets"] = [each.as_json() for each in request_targets(requests)] + [
        target | {"items": bench["extra_info"]["items"]}
        for bench in output_json["benchmarks"]
        for target in bench["extra_info"].get("targets", ())
    ]
