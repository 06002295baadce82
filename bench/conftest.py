"""What the benchmarks share: catalogues of vectors and their indexes, made once and kept under .benchmarks/."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine.adapters.faiss_build import IndexParameters, build_index
from engine.data.synth_world import World, WorldSize
from engine.types import Float32Array
from tests.contracts.clustered import clustered

ITEM_COUNT = int(os.environ.get("BENCH_ITEMS", 1_000_000))
DIM = 64
QUERY_COUNT = 512  # the first half calibrates the index, the second half is measured
CACHE = Path(__file__).parents[1] / ".benchmarks"


@dataclass(frozen=True)
class Catalogue:
    """Item vectors (mapped), queries that calibration never saw, and the index file with its parameters."""

    vectors: Float32Array
    queries: Float32Array
    index_path: Path
    parameters: IndexParameters


@pytest.fixture(scope="session", params=["synthetic", "clustered"])
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    """BENCH_ITEMS (default 1,000,000) unit vectors of 64 and an index over them, built on one thread.

    synthetic: the latent vectors of the synthetic world, searched with what its people are after.
    clustered: harder, isotropic clusters of 500 with a wide spread, so that the top 1000 spans several of them.
    """
    directory = CACHE / f"{request.param}-{ITEM_COUNT}x{DIM}"
    files = [directory / name for name in ("vectors.npy", "queries.npy", "index.faiss", "parameters.json")]
    vectors_path, queries_path, index_path, parameters_path = files
    if not parameters_path.exists():  # written last, so that an interrupted build starts over
        directory.mkdir(parents=True, exist_ok=True)
        vectors, queries = _synthetic() if request.param == "synthetic" else _clustered()
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


def _synthetic() -> tuple[Float32Array, Float32Array]:
    world = World(WorldSize(items=ITEM_COUNT, users=QUERY_COUNT, dim=DIM), seed=0)
    times_ms = np.full(QUERY_COUNT, world.size.end_ms)
    intents, _ = world.intents(np.arange(QUERY_COUNT), times_ms, np.random.default_rng(0))
    return world.item_latents, intents


def _clustered() -> tuple[Float32Array, Float32Array]:
    return clustered(ITEM_COUNT, DIM, QUERY_COUNT, seed=0)
