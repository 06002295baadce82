"""Other libraries at the recall of the bundle's index."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.adapters.faiss.calibrate import Truth
from engine.types import Float32Array, Int64Array
from engine_bench.peers import stage_retrieve
from engine_bench.peers.ann import BuildProgress, Parameters, build_or_open, rising
from engine_bench.peers.sample import StageInputs
from engine_bench.peers.stage_retrieve import measure_retrieve
from tests.bench.peers.conftest import Small


class FirstRows:
    """Exact among the first rows alone: its recall rises with their number."""

    name = "first"
    title = "first rows"

    def __init__(self, vectors: Float32Array, most: int) -> None:
        self.build_parameters: Parameters = {}
        self.vectors = vectors
        self.most = most
        self.rows = 0

    def build(self, vectors: Float32Array, path: Path, progress: BuildProgress) -> None:
        path.touch()

    def open(self, path: Path, dim: int) -> None:
        pass

    def ladders(self, item_count: int, k: int) -> Sequence[Sequence[Parameters]]:
        return [[{"rows": rows} for rows in rising(k, self.most)]]

    def use(self, parameters: Parameters) -> None:
        self.rows = parameters["rows"]

    def search(self, query: Float32Array, k: int) -> Int64Array:
        return np.argsort(-(self.vectors[: self.rows] @ query))[:k]


@pytest.fixture
def truth() -> Truth:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((1000, 8)).astype(np.float32)
    return Truth.of(vectors, draw.standard_normal((40, 8)).astype(np.float32), 50)


def test_tuning_stops_at_the_first_step_that_reaches_the_recall(truth: Truth) -> None:
    vectors = np.random.default_rng(0).standard_normal((1000, 8)).astype(np.float32)
    peer = FirstRows(vectors, 1000)
    used, recall = stage_retrieve._tune(peer, vectors, truth, 0.7, lambda done, total, message: None)
    assert 0.7 <= recall < 0.85
    assert peer.rows == used["rows"] < 850
    everything, recall = stage_retrieve._tune(peer, vectors, truth, 1.0, lambda done, total, message: None)
    assert (everything["rows"], recall) == (1000, 1.0)


def test_what_does_not_reach_the_recall_is_used_at_its_best(truth: Truth) -> None:
    vectors = np.random.default_rng(0).standard_normal((1000, 8)).astype(np.float32)
    peer = FirstRows(vectors, 300)
    used, recall = stage_retrieve._tune(peer, vectors, truth, 0.9, lambda done, total, message: None)
    assert used["rows"] == peer.rows == 300
    assert recall < 0.5


def test_scann_finds_what_an_exact_search_finds(tmp_path: Path) -> None:
    pytest.importorskip("scann")
    from engine_bench.peers.ann_scann import Scann

    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((3000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[:1] + 0.1
    exact = set(np.argsort(-(vectors @ query[0]))[:100].tolist())
    for attempt in range(2):  # built, then opened from what the first time left behind
        built: list[int] = []
        peer = Scann()
        build_or_open(peer, vectors, tmp_path, lambda done, total, told=built: told.append(done))  # type: ignore[misc]
        assert bool(built) == (attempt == 0)
        peer.use(peer.ladders(len(vectors), 100)[-1][-1])
        found = peer.search(query[0], 100)
        assert found.dtype == np.int64
        assert len(set(found.tolist()) & exact) >= 98


def test_libraries_that_are_not_there_say_why(
    small: Small, inputs: list[StageInputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_retrieve, "missing", lambda name: f"{name} is not installed")

    def skipped(skip: list[str]) -> str:
        engine, scann = measure_retrieve(small.bundle, queries, tmp_path, 8, skip, lambda done, total, message: None)
        assert engine["recall_at_1000"] == 1.0
        assert 0 < engine["p50_ms"] <= engine["p99_ms"]
        assert scann["name"] == "scann"
        return str(scann["skipped"])

    queries = np.stack([each.query for each in inputs])
    assert skipped([]) == "scann is not installed"
    assert skipped(["scann"]) == "left out by --skip"
