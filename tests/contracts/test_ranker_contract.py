"""What every ranker promises. A new one joins the fixture."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from engine.adapters.onnx.gpu_ranker import DeviceRanking, OnnxGpuRanker
from engine.adapters.onnx.ranker import OnnxRanker
from engine.batching.batched import BatchedRanker
from engine.batching.micro_batcher import MicroBatcher
from engine.device.remote import RemoteRanker
from engine.stages.rank import Ranker
from engine.training.ranker.train import export_half_ranker, export_ranker
from engine.types import RankingContext
from tests.engine.device.serving import OnlyBundle, device_model, served
from tests.engine.training.ranker import small
from tests.gpu import on_gpu

# The device's ranker takes the same road over buffers of the processor's memory: two shapes, one of them too small for
# most of the requests here, so that there are parts and padding.
SMALL = DeviceRanking(device="cpu", candidate_count=48, batch_sizes=(1, 4))
CUDA = DeviceRanking(device="cuda", candidate_count=48, batch_sizes=(1, 4))
DEVICES = {"device": SMALL, "device-float16": SMALL, "cuda": CUDA, "cuda-float16": CUDA}
BACKENDS = [
    "onnx",
    "batched",
    "remote",
    "remote-device",
    *(on_gpu(name) if name.startswith("cuda") else name for name in DEVICES),
]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def graph_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """Writes each of the two graphs, in float16 or not, once."""
    directory = tmp_path_factory.mktemp("ranker")

    @cache
    def graph(half: bool) -> Path:
        path = directory / ("half.onnx" if half else "ranker.onnx")
        export = export_half_ranker if half else export_ranker
        assert export(small.ranker(), *small.tables(), path) is not None
        return path

    return graph


@pytest.fixture(scope="module")
def ranker(backend: str, graph_of: Callable[[bool], Path]) -> Iterator[Ranker]:
    path = graph_of(backend.endswith("float16"))
    table, dynamic = small.tables()
    schema = small.ranker().schema
    with MicroBatcher(max_batch=4, max_queued=64) as batcher:
        if backend == "onnx":
            yield OnnxRanker(path, schema, table, dynamic)
        elif backend == "batched":
            # Of one shape, so that a score does not depend on whom it shares a call with.
            settings = replace(SMALL, batch_sizes=(4,))
            yield BatchedRanker(OnnxGpuRanker(path, schema, table, dynamic, settings), batcher)
        elif backend.startswith("remote"):
            # Alone in each call, or of one shape, for the same reason.
            settings = replace(SMALL, batch_sizes=(4,))
            behind = OnnxRanker(path, schema, table, dynamic)
            model = device_model(
                ranker=behind if backend == "remote" else OnnxGpuRanker(path, schema, table, dynamic, settings),
                schema=schema,
                row_count=len(table),
            )
            with served(model, max_batch=1 if backend == "remote" else 4) as client:
                yield RemoteRanker(client, OnlyBundle(len(table)))
        else:
            yield OnnxGpuRanker(path, schema, table, dynamic, DEVICES[backend])


def context(position: int) -> RankingContext:
    sample = small.ranker().sample
    return RankingContext(
        sample.query[position], sample.session[position], sample.collaborative[position], sample.dense[position],
        sample.codes[position],
    )  # fmt: skip


def some_rows(seed: int, count: int = 100) -> np.ndarray:
    return np.random.default_rng(seed).permutation(small.world().item_count)[:count]


def test_scores_are_probabilities(ranker: Ranker) -> None:
    scores = ranker.score(context(0), some_rows(0))
    assert scores.dtype == np.float32
    assert scores.shape == (100,)
    assert (scores > 0).all()
    assert (scores < 1).all()
    assert np.ptp(scores) > 0


def test_no_candidates_no_scores(ranker: Ranker) -> None:
    scores = ranker.score(context(0), np.empty(0, np.int64))
    assert scores.dtype == np.float32
    assert scores.shape == (0,)


def test_a_candidate_scores_the_same_alone_and_in_any_company(ranker: Ranker, backend: str) -> None:
    # In float16 a device's products of another shape round otherwise.
    rtol = 5e-3 if backend == "cuda-float16" else 1e-4
    rows = some_rows(1)
    together = ranker.score(context(1), rows)
    alone = [ranker.score(context(1), rows[i : i + 1])[0] for i in range(len(rows))]
    np.testing.assert_allclose(together, alone, rtol=rtol)
    shuffled = np.random.default_rng(2).permutation(len(rows))
    np.testing.assert_allclose(ranker.score(context(1), rows[shuffled]), together[shuffled], rtol=rtol)


def test_the_same_request_twice_gives_the_same_scores(ranker: Ranker) -> None:
    first = ranker.score(context(2), some_rows(3))
    kept = first.copy()
    ranker.score(context(3), some_rows(4))
    np.testing.assert_array_equal(ranker.score(context(2), some_rows(3)), kept)
    np.testing.assert_array_equal(first, kept)  # no call writes into an earlier one's answer


def test_read_only_rows_are_fine(ranker: Ranker) -> None:
    rows = some_rows(5)
    rows.flags.writeable = False
    assert len(ranker.score(context(0), rows)) == len(rows)


def test_concurrent_scores_equal_serial_ones(ranker: Ranker) -> None:
    requests = [(context(i % 16), some_rows(i, 20 + i)) for i in range(64)]
    serial = [ranker.score(*request) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        for found, expected in zip(pool.map(lambda request: ranker.score(*request), requests), serial, strict=True):
            np.testing.assert_array_equal(found, expected)
