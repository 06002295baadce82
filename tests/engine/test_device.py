"""Where search and ranking run: what the settings may ask for, and that sharing calls changes no answer."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from engine.adapters.cuda.device import require_device, require_memory
from engine.adapters.onnx.gpu_ranker import DeviceRanking, OnnxGpuRanker
from engine.adapters.onnx.ranker import OnnxRanker
from engine.app.backends import batch_sizes, open_batcher, open_ranker
from engine.app.model import load_model
from engine.batching.batched import BatchedRanker
from engine.batching.micro_batcher import MicroBatcher
from engine.bundle.bundle import RANKER_FILE, RANKER_HALF_FILE, RANKER_INT8_FILE
from engine.catalog.changes import Overlay
from engine.cli.main import run
from engine.config.serving import DeviceConfig, EngineConfig
from engine.errors import BundleError, ConfigError
from engine.features.schema import CODE_FEATURES
from engine.request.model import ServingModel
from engine.stages.rank import Ranker
from engine.stream.popularity import OVERALL
from engine.stream.trending import ItemCounts
from engine.types import Int64Array, RankingContext, item_keys
from tests.conftest import Trained
from tests.engine.catalog.items import upsert
from tests.gpu import HAS_CUDA, needs_cuda

CPU_WHEELS = "GPU" not in faiss.get_compile_options().split()


def context(model: ServingModel, seed: int) -> RankingContext:
    schema, rng = model.bundle.schema, np.random.default_rng(seed)
    return RankingContext(
        query=np.array(model.bundle.item_vectors[seed], np.float32),
        session=np.array(model.bundle.item_vectors[seed + 1], np.float32),
        collaborative=rng.normal(size=schema.collaborative_dim).astype(np.float32),
        dense=rng.normal(size=schema.dense_dim).astype(np.float32),
        codes=np.zeros(len(CODE_FEATURES), np.int64),
    )


@pytest.mark.skipif(not CPU_WHEELS, reason="needs the cpu extra")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"retrieval": "cuda"}, r'device\.retrieval = "cuda" needs FAISS with GPU support, found faiss-cpu 1'),
        ({"ranking": "cuda"}, r'device\.ranking = "cuda" needs ONNX Runtime with CUDAExecutionProvider, found onnxr'),
        ({"ranking": "cuda", "provider": "tensorrt"}, "needs ONNX Runtime with TensorrtExecutionProvider"),
    ],
)
def test_a_device_without_its_libraries_is_refused_by_name(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_device(DeviceConfig.model_validate(settings))


@pytest.mark.skipif(CPU_WHEELS or HAS_CUDA, reason="needs the gpu extra on a machine without a device")
@pytest.mark.parametrize("stage", ["retrieval", "ranking"])
def test_libraries_without_a_device_are_refused_by_name(stage: str) -> None:
    with pytest.raises(ConfigError, match="none can be used"):
        require_device(DeviceConfig.model_validate({stage: "cuda"}))


@needs_cuda
def test_a_device_that_does_not_exist_or_has_no_room_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"device\.cuda_device is 63"):
        require_device(DeviceConfig(retrieval="cuda", ranking="cuda", cuda_device=63))
    with pytest.raises(ConfigError, match=r"the index needs .* MiB are free"):
        require_memory("the index", 1 << 50, 0)


@pytest.mark.skipif(HAS_CUDA, reason="needs a machine without a CUDA device")
def test_a_server_that_cannot_have_its_device_says_so_in_one_line(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "engine.toml"
    file.write_text('[device]\nranking = "cuda"\n')
    monkeypatch.setattr(
        sys, "argv", ["engine", "serve", "--config", str(file), "--bundles", str(trained.bundles.directory)]
    )
    with pytest.raises(SystemExit) as exit_info:
        run()
    assert exit_info.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("engine: ")]
    assert "cuda" in line.lower()


def test_on_the_processor_nothing_of_the_gpus_is_imported(trained: Trained) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from engine.app.serve import load_model\n"
        "from engine.config.serving import EngineConfig\n"
        "load_model(Path(sys.argv[1]), EngineConfig.load())\n"
        "print(*[name for name in sys.modules if 'gpu' in name.split('.')[-1].lower() or name.startswith('cuda')\n"
        "       or name.endswith(('cuda_device', 'device_table'))])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(trained.bundles.current())], capture_output=True, text=True, check=True
    )
    # FAISS brings names of its own into every process.
    assert [name for name in done.stdout.splitlines()[-1].split() if not name.startswith("faiss.")] == []


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, (1,)), (2, (1, 2)), (4, (1, 4)), (32, (1, 4, 16, 32)), (64, (1, 4, 16, 64))]
)
def test_batches_are_padded_to_powers_of_four(most: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(most) == sizes


def test_calls_are_shared_on_a_device_and_elsewhere_where_the_settings_say_so() -> None:
    assert EngineConfig.load().micro_batch == 0
    assert EngineConfig.load(device={"ranking": "cuda"}).micro_batch == 32
    assert EngineConfig.load(device={"ranking": "cuda"}, server={"micro_batch": 0}).micro_batch == 0
    assert EngineConfig.load(server={"micro_batch": 8}).micro_batch == 8
    # Threads wait for shared calls: a whole batch of them.
    assert EngineConfig.load().compute_threads(2) == 2
    assert EngineConfig.load().compute_threads(0) == 1
    assert EngineConfig.load(server={"micro_batch": 8}).compute_threads(2) == 8
    assert EngineConfig.load(server={"micro_batch": 8, "compute_threads": 3}).compute_threads(2) == 3
    with open_batcher(EngineConfig.load()) as batcher:
        assert batcher is None
    with open_batcher(EngineConfig.load(server={"micro_batch": 8})) as batcher:
        assert batcher is not None
        assert batcher.max_batch == 8


@pytest.fixture(scope="module")
def batcher() -> Iterator[MicroBatcher]:
    with MicroBatcher(max_batch=8, max_queued=64) as batcher:
        yield batcher


def test_shared_calls_give_the_answers_of_separate_ones(trained: Trained, batcher: MicroBatcher) -> None:
    config, path = EngineConfig.load(server={"micro_batch": 8}), trained.bundles.current()
    alone, shared = load_model(path, config), load_model(path, config, batcher=batcher)
    assert isinstance(shared.ranker, BatchedRanker)
    jobs = [(context(alone, seed), np.arange(seed, 100 + 7 * seed)) for seed in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda job: shared.ranker.score(*job), jobs))
    for (asked, rows), answer in zip(jobs, answers, strict=True):
        np.testing.assert_allclose(answer, alone.ranker.score(asked, rows), rtol=1e-4)


def test_a_batch_that_cannot_be_ranked_as_one_is_ranked_one_by_one(trained: Trained) -> None:
    model = load_model(trained.bundles.current(), EngineConfig.load())
    ranker = model.ranker
    assert isinstance(ranker, OnnxRanker)
    good, bad = (context(model, 0), np.arange(5)), (context(model, 1), np.array([0, 10**6]))
    first, refused, last = ranker.score_many([good, bad, good])
    assert isinstance(refused, Exception)
    assert "must lie in" in str(refused)
    np.testing.assert_allclose(np.asarray(first), ranker.score(*good), rtol=1e-4)
    np.testing.assert_allclose(np.asarray(last), ranker.score(*good), rtol=1e-4)


def test_int8_serves_where_the_bundle_has_it(trained: Trained) -> None:
    path, int8 = trained.bundles.current(), EngineConfig.load(device={"cpu_precision": "int8"})
    exact = load_model(path, EngineConfig.load())
    if RANKER_INT8_FILE in exact.bundle.manifest.files:
        asked, rows = context(exact, 0), np.arange(200)
        found, wanted = load_model(path, int8).ranker.score(asked, rows), exact.ranker.score(asked, rows)
        assert not np.array_equal(found, wanted)
        np.testing.assert_allclose(np.log(found), np.log(wanted), atol=0.5)
    files = {name: digest for name, digest in exact.bundle.manifest.files.items() if name != RANKER_INT8_FILE}
    without = replace(exact.bundle, manifest=exact.bundle.manifest.model_copy(update={"files": files}))
    with pytest.raises(BundleError, match=r"no ranker\.int8\.onnx for device\.cpu_precision = \"int8\""):
        open_ranker(without, exact.catalogue, int8, None)


@pytest.mark.parametrize("file", [RANKER_FILE, RANKER_HALF_FILE])
def test_what_changes_in_the_catalogue_reaches_the_tables_of_a_device(trained: Trained, file: str) -> None:
    """New items, changed content and live counts, through the ranker for devices on the processor's memory."""
    model = load_model(trained.bundles.current(), EngineConfig.load(catalog={"fresh_capacity": 16}))
    catalogue = model.catalogue
    settings = DeviceRanking(device="cpu", candidate_count=700, batch_sizes=(1,))
    device = OnnxGpuRanker(
        model.bundle.path / file, model.bundle.schema, catalogue.item_table, catalogue.item_dynamic, settings
    )
    catalogue.row_listeners.append(device.rows_written)
    known = model.bundle.items.ids(np.array([7]))[0]

    def agree(ranker: Ranker, rows: Int64Array) -> None:
        asked = context(model, 3)
        np.testing.assert_allclose(device.score(asked, rows), ranker.score(asked, rows), atol=1e-2)
        if file == RANKER_FILE:
            np.testing.assert_allclose(device.score(asked, rows), ranker.score(asked, rows), rtol=1e-4)

    rows = np.arange(catalogue.row_count)
    agree(model.ranker, rows)
    before = device.score(context(model, 3), rows)
    overlay = Overlay()
    overlay.add([upsert("new", category="c", price=5.0), upsert(known, price=123.0)])
    catalogue.apply(overlay.since(catalogue.sequence), overlay.sequence)
    agree(model.ranker, rows)
    keys = item_keys([known, "new"])
    model.popularity.apply({OVERALL: ItemCounts(keys, np.full((2, 5), 40.0))}, 50.0)
    agree(model.ranker, rows)
    changed = np.flatnonzero(device.score(context(model, 3), rows) != before).tolist()
    assert set(changed) == {7, int(catalogue.rows(item_keys(["new"]))[0])}


def test_a_copy_that_fails_stops_no_change_of_the_catalogue(trained: Trained, caplog: pytest.LogCaptureFixture) -> None:
    catalogue = load_model(trained.bundles.current(), EngineConfig.load(catalog={"fresh_capacity": 16})).catalogue

    def fail(rows: Int64Array) -> None:
        raise RuntimeError("the device fell over")

    catalogue.row_listeners.append(fail)
    overlay = Overlay()
    overlay.add([upsert("new", category="c")])
    catalogue.apply(overlay.since(catalogue.sequence), overlay.sequence)
    row = int(catalogue.rows(item_keys(["new"]))[0])
    assert catalogue.of_surface("home")[row >> 3] >> (row & 7) & 1
    assert "copy of the item tables is stale" in caplog.text


@needs_cuda
@pytest.mark.parametrize("index", ["exact", "cagra"])
def test_a_whole_model_on_a_device_answers_as_on_the_processor(
    trained: Trained, batcher: MicroBatcher, index: str
) -> None:
    path = trained.bundles.current()
    on_device = EngineConfig.load(device={"retrieval": "cuda", "ranking": "cuda", "index": index})
    model, expected = load_model(path, on_device, batcher=batcher), load_model(path, EngineConfig.load())
    everything = np.full(model.catalogue.row_count // 8, 255, np.uint8)
    for seed in range(20):
        asked = context(model, seed)
        rows, scores = model.index.search(asked.query, 100, everything)
        exact_rows, exact_scores = expected.index.search(asked.query, 100, everything)
        np.testing.assert_allclose(scores, exact_scores, atol=5e-3)
        np.testing.assert_allclose(
            model.ranker.score(asked, exact_rows), expected.ranker.score(asked, exact_rows), atol=1e-2
        )
        assert len(np.unique(rows)) == 100
