"""The GPU bench, rehearsed in small on the processor; and that its checks find what is wrong."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.adapters.onnx.gpu_ranker import DeviceRanking, OnnxGpuRanker
from engine.adapters.onnx.ranker import OnnxRanker
from engine.bundle.bundle import RANKER_FILE, RANKER_HALF_FILE, open_bundle
from engine.cli.main import run
from engine.errors import EngineError
from engine.features.schema import CODE_FEATURES
from engine.retrieval.overfetch import Found, OverFetchingIndex
from engine.types import RankingContext
from engine_bench.commands.bench import app
from engine_bench.float16 import Float16Searcher
from engine_bench.gpu import gpu_targets
from engine_bench.gpu_floors import Floors, measure_floors
from engine_bench.gpu_request import check_scores
from engine_bench.gpu_retrieval import Kind, check_candidates, make_vectors, measure_retrieval
from engine_bench.targets import Target
from tests.conftest import Trained
from tests.gpu import HAS_CUDA

ITEMS = 1_000


def test_a_rehearsal_on_the_processor_from_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    small = ["--items", str(ITEMS), "--dims", "16", "--batches", "4", "--seconds", "0.01", "--front-ends", "0"]
    result = CliRunner().invoke(app, ["gpu", "--device", "cpu", "--json", str(out), "--cache", str(tmp_path), *small])
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["rehearsal"] is True
    assert report["device"] == "cpu"
    (retrieval,) = report["retrieval"]
    assert (retrieval["items"], retrieval["dim"]) == (ITEMS, 16)
    assert retrieval["recall_at_k"] >= 0.98
    assert [line["batch"] for line in retrieval["all_eligible"]] == [1, 4]
    assert {line["share"] for line in retrieval["filtered"]} == {0.5, 0.1, 0.02}
    assert all(line["p50_ms"] > 0 for line in (*retrieval["all_eligible"], *retrieval["filtered"]))
    assert report["ranking"]["max_difference"] <= 1e-2
    assert report["ranking"]["top_50_overlap"] >= 0.98
    assert [line["callers"] for line in report["requests"]["loaded"]] == [4]
    assert {"retrieve", "rank", "diversify"} <= set(report["requests"]["stages"])
    # What was not measured is not said to be met.
    assert report["targets"]["retrieve_1000_of_10m_x_64_batch_1_p50_ms"] == {
        "target": 2.0, "measured": None, "met": None,
    }  # fmt: skip
    assert not list(tmp_path.glob("gpu-work"))


@pytest.mark.skipif(HAS_CUDA, reason="needs a machine without a CUDA device")
def test_without_a_device_it_says_so_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["engine", "bench", "gpu", "--cache", str(tmp_path / "cache")])
    with pytest.raises(SystemExit) as exit_info:
        run()
    assert exit_info.value.code == 2
    assert "cuda" in capsys.readouterr().err.lower()
    assert not (tmp_path / "cache").exists()


class Forgetful(Float16Searcher):
    """Never finds the best item of all."""

    def search(self, queries: np.ndarray, k: int) -> Found:
        rows, scores = super().search(queries, k + 1)
        return rows[:, 1:].copy(), scores[:, 1:].copy()


class Shifted(Float16Searcher):
    """Finds the right items, and gives them the scores of others."""

    def search(self, queries: np.ndarray, k: int) -> Found:
        rows, scores = super().search(queries, k)
        return rows, (scores + np.float32(0.01)).astype(np.float32)


def test_equal_candidates_pass_and_a_missing_or_a_wrong_one_does_not() -> None:
    vectors, queries = make_vectors(3_000, 16, seed=0)

    def check(searcher: Float16Searcher, exact: bool = True) -> float:
        kind = Kind("kind", lambda _: searcher, exact)
        return check_candidates(OverFetchingIndex(searcher, vectors), vectors, queries[:4], 50, kind)

    # Float16 may swap what is all but equal.
    assert check(Float16Searcher(vectors)) >= 0.98
    for searcher in (Forgetful(vectors), Shifted(vectors)):
        with pytest.raises(EngineError, match="does not find what a scan finds"):
            check(searcher)
    # Of what does not claim to be exact, the recall is noted.
    assert 0.9 < check(Forgetful(vectors), exact=False) <= 0.98


def test_a_ranker_that_is_off_is_found(trained: Trained) -> None:
    bundle = open_bundle(trained.bundles.current())
    dynamic = np.array(bundle.item_dynamic)
    settings = DeviceRanking(device="cpu", candidate_count=200, batch_sizes=(1,))
    device = OnnxGpuRanker(bundle.path / RANKER_HALF_FILE, bundle.schema, bundle.item_table, dynamic, settings)
    rng = np.random.default_rng(0)
    schema = bundle.schema
    context = RankingContext(
        query=np.array(bundle.item_vectors[3], np.float32),
        session=np.zeros(schema.embedding_dim, np.float32),
        collaborative=rng.normal(size=schema.collaborative_dim).astype(np.float32),
        dense=rng.normal(size=schema.dense_dim).astype(np.float32),
        codes=np.zeros(len(CODE_FEATURES), np.int64),
    )
    requests = [(context, np.arange(200))]
    reference = OnnxRanker(bundle.path / RANKER_FILE, schema, bundle.item_table, dynamic)
    assert check_scores(device, reference, requests)["top_50_overlap"] >= 0.98
    shuffled = np.ascontiguousarray(bundle.item_table[::-1])
    other = OnnxRanker(bundle.path / RANKER_FILE, schema, shuffled, dynamic)
    with pytest.raises(EngineError, match="the device's ranker is off"):
        check_scores(device, other, requests)


def test_the_floor_is_what_reading_or_multiplying_takes_at_least() -> None:
    floors = Floors(bytes_per_s=1e12, flops_per_s=1e14)
    assert floors.scan_ms(10_000_000, 64, 1) == pytest.approx(1.28)
    assert floors.scan_ms(10_000_000, 64, 1000) == pytest.approx(12.8)
    measured = measure_floors("cpu", 0)
    assert 1e8 < measured.bytes_per_s < 1e13
    assert 1e8 < measured.flops_per_s < 1e15


def test_targets_are_judged_by_what_was_measured() -> None:
    def run_of(kind: str, first_ms: float, batch_ms: float, floor_ms: float | None) -> dict[str, Any]:
        lines = [{"batch": 1, "p50_ms": first_ms}, {"batch": 32, "p50_ms": batch_ms}]
        return {
            "kind": kind, "items": 10_000_000, "dim": 64,
            "all_eligible": [{**line, "floor_ms": floor_ms} for line in lines],
        }  # fmt: skip

    ranking = {"by_batch": [{"batch": 1, "p50_ms": 0.4}]}
    requests = {"alone": {"p50_ms": 2.0, "p99_ms": 11.0}, "loaded": [{"requests_per_s": 400.0}]}
    runs = [run_of("slow", 5.0, 9.0, 1.0), run_of("quick", 1.5, 1.9, 1.0), run_of("graph", 0.1, 0.1, None)]
    targets = gpu_targets(runs, ranking, requests, None)
    assert {target.name: target.met for target in targets} == {
        "retrieve_1000_of_10m_x_64_batch_1_p50_ms": True,
        "retrieve_1000_of_10m_x_64_batch_32_p50_over_floor": True,
        "rank_1000_p50_ms": True,
        "request_p50_ms": True,
        "request_p99_ms": False,
        "requests_per_s": False,
    }
    assert targets[0].measured == 1.5
    assert targets[-1].measured == 400.0
    front_ends = {"runs": [{"requests_per_s": 3000.0}, {"requests_per_s": 5001.0}]}
    assert gpu_targets(runs, ranking, requests, front_ends)[-1] == Target(
        "requests_per_s", 5001.0, 5000.0, "at least", "1/s"
    )
    assert {target.measured for target in gpu_targets([], None, None, None)} == {None}


def test_a_measurement_checks_before_it_times() -> None:
    vectors, queries = make_vectors(2_000, 16, seed=0)
    with pytest.raises(EngineError, match="does not find"):
        measure_retrieval(Kind("bad", Forgetful), vectors, queries, (1, 2), 0.01, Floors(1e12, 1e14))
