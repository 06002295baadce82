"""What every ItemIndex owes its callers, run on each backend."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.adapters.faiss import build as faiss_build
from engine.adapters.faiss.index import FaissIndex
from engine.batching.batched import BatchedIndex
from engine.batching.micro_batcher import MicroBatcher
from engine.config.serving import DeviceConfig
from engine.device.model import BatchSearch, one_by_one
from engine.device.remote import RemoteIndex
from engine.errors import ConfigError, EngineError
from engine.kernels.membership import pack_mask
from engine.retrieval.overfetch import OverFetchingIndex
from engine.retrieval.shards import ShardedSearcher
from engine.stages.retrieve import ItemIndex
from engine_bench.float16 import Float16Searcher
from tests.contracts.clustered import clustered
from tests.engine.device.serving import device_model, served
from tests.gpu import on_gpu

ITEM_COUNT, DIM = 60_001, 32  # not a multiple of 8, so that the last byte of a bitmap is partly padding
TARGET = 0.97


@dataclass(frozen=True)
class Subject:
    """One backend over the shared items. An approximate one scores by quantized vectors, hence the tolerance."""

    index: ItemIndex
    vectors: np.ndarray
    queries: np.ndarray
    score_tolerance: float


GPU = {
    "gpu-exact-fused": DeviceConfig(retrieval="cuda", kernels="fused"),
    "gpu-exact-cuvs": DeviceConfig(retrieval="cuda", kernels="cuvs"),
    "gpu-exact-classic": DeviceConfig(retrieval="cuda", kernels="classic"),
    "gpu-ivf": DeviceConfig(retrieval="cuda", index="ivf"),
    "gpu-cagra": DeviceConfig(retrieval="cuda", index="cagra"),
}
SCORE_TOLERANCES = {
    "flat": 1e-5, "ivf-sq8": 2e-2, "ivf-sqfp16": 2e-3, "ivf-sq8-with-vectors": 2e-2, "over-fetch": 1e-5,
    "float16": 2e-3, "float16-unfiltered": 2e-3, "float16-filtering": 2e-3, "float16-shards": 2e-3,
    "float16-batched": 2e-3, "flat-remote": 1e-5, "float16-remote": 2e-3, "gpu-exact-fused": 2e-3,
    "gpu-exact-cuvs": 2e-3, "gpu-exact-classic": 2e-3, "gpu-ivf": 2e-2, "gpu-cagra": 2e-3,
}  # fmt: skip
BACKENDS = [on_gpu(name) if name in GPU else name for name in SCORE_TOLERANCES]


class Unfiltered:
    """An exact index without filters, with the limits and oddities of those on other devices.

    It returns 2,048 at most, sometimes an item that the table does not have, and -1 where it found nothing.
    """

    dim, item_count, max_k, filters, filter_below = DIM, ITEM_COUNT, 2048, False, 0.0

    def __init__(self, vectors: np.ndarray) -> None:
        self._index = faiss.IndexFlatIP(DIM)
        self._index.add(vectors)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        assert 0 < k <= self.max_k
        faiss.omp_set_num_threads(1)  # of the calling thread: sums come out alike whoever else is searching
        scores, rows = self._index.search(queries, k)
        if k > 50:
            rows[:, 20], rows[:, -1] = ITEM_COUNT + 3, -1
        return rows, scores

    def search_eligible(
        self, queries: np.ndarray, k: int, eligible: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("an index without filters is not to be asked for one")


def over_fetching(backend: str, vectors: np.ndarray) -> OverFetchingIndex:
    if backend == "over-fetch":
        return OverFetchingIndex(Unfiltered(vectors), vectors)
    if backend == "float16-shards":
        parts = np.array_split(vectors, 7)
        return OverFetchingIndex(ShardedSearcher([Float16Searcher(part, max_k=512) for part in parts]), vectors)
    searcher = Float16Searcher(vectors, max_k=2048)
    searcher.filters = backend in ("float16", "float16-filtering")
    searcher.filter_below = 0.9 if backend == "float16-filtering" else 0.0
    return OverFetchingIndex(searcher, vectors)


@pytest.fixture(scope="module")
def batcher() -> Iterator[MicroBatcher]:
    with MicroBatcher(max_batch=4, max_queued=64) as batcher:
        yield batcher


@pytest.fixture(scope="module", params=BACKENDS)
def subject(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    batcher: MicroBatcher,
    remote_index: Callable[[BatchSearch, np.ndarray], RemoteIndex],
) -> Subject:
    backend: str = request.param
    index: ItemIndex
    vectors, queries = clustered(ITEM_COUNT, DIM, query_count=80, seed=3)
    if backend == "float16-batched":
        index = BatchedIndex(over_fetching("float16", vectors), batcher)
        return Subject(index, vectors, queries[40:], SCORE_TOLERANCES[backend])
    if backend == "float16-remote":
        index = remote_index(over_fetching("float16", vectors).search_batch, vectors)
        return Subject(index, vectors, queries[40:], SCORE_TOLERANCES[backend])
    if backend == "over-fetch" or backend.startswith("float16"):
        return Subject(over_fetching(backend, vectors), vectors, queries[40:], SCORE_TOLERANCES[backend])
    path: Path = tmp_path_factory.mktemp(backend) / "index.faiss"
    with pytest.MonkeyPatch.context() as patch:
        if backend == "ivf-sqfp16":
            patch.setattr(faiss_build, "_CODECS", {"SQfp16": faiss.ScalarQuantizer.QT_fp16})
        parameters = faiss_build.build_index(
            vectors,
            path,
            queries=queries[:40],
            target_recall=TARGET,
            k=500,
            exact_below=ITEM_COUNT + 1 if backend.startswith("flat") else 0,
        )
    if backend in GPU:
        from engine.adapters.faiss.gpu_index import open_gpu_index

        try:
            index = open_gpu_index(path, parameters, vectors, GPU[backend])
        except ConfigError as error:
            if backend != "gpu-cagra":
                raise
            pytest.skip(str(error))  # a graph may be refused for what it finds: these vectors are clustered
        return Subject(index, vectors, queries[40:], SCORE_TOLERANCES[backend])
    assert parameters.factory.lower().endswith(backend.split("-")[1] if "ivf" in backend else "flat")
    index = FaissIndex.open(path, parameters, vectors if backend.endswith("vectors") else None)
    if backend == "flat-remote":
        index = remote_index(one_by_one(index), vectors)
    return Subject(index, vectors, queries[40:], SCORE_TOLERANCES[backend])


@pytest.fixture(scope="module")
def remote_index() -> Iterator[Callable[[BatchSearch, np.ndarray], RemoteIndex]]:
    """An index behind a device process, whose part a thread of this one plays: through sockets and shared memory."""
    with ExitStack() as resources:

        def remote(search: BatchSearch, vectors: np.ndarray) -> RemoteIndex:
            client = resources.enter_context(served(device_model(search_batch=search, dim=DIM, item_count=ITEM_COUNT)))
            return RemoteIndex(client, DIM, vectors)

        yield remote


def everything() -> np.ndarray:
    return np.full((ITEM_COUNT + 7) // 8, 255, np.uint8)


def random_mask(share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(ITEM_COUNT) < share


def assert_sound(subject: Subject, query: np.ndarray, k: int, mask: np.ndarray) -> np.ndarray:
    """What holds for every answer, whatever the recall; returns the rows."""
    rows, scores = subject.index.search(query, k, pack_mask(mask))
    assert (rows.dtype, scores.dtype) == (np.int64, np.float32)
    assert len(rows) == len(scores) == min(k, int(mask.sum()))
    assert len(np.unique(rows)) == len(rows)
    assert mask[rows].all()
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_allclose(scores, subject.vectors[rows] @ query, atol=subject.score_tolerance)
    return rows


def test_it_says_what_it_holds(subject: Subject) -> None:
    assert (subject.index.item_count, subject.index.dim) == (ITEM_COUNT, DIM)


def test_recall_reaches_the_target_on_queries_that_calibration_never_saw(subject: Subject) -> None:
    recalls = []
    for query in subject.queries:
        rows, _ = subject.index.search(query, 500, everything())
        exact = np.argpartition(-(subject.vectors @ query), 500)[:500]
        recalls.append(len(np.intersect1d(rows, exact)) / 500)
    # Calibration was on other queries: allow for three standard errors of this mean.
    assert np.mean(recalls) >= TARGET - 3 * np.std(recalls) / np.sqrt(len(recalls))


@pytest.mark.parametrize("share", [0.99, 0.5, 0.1, 0.02, 0.001])
def test_recall_holds_when_few_items_are_eligible(subject: Subject, share: float) -> None:
    mask = random_mask(share)
    eligible = np.flatnonzero(mask)
    k = min(500, len(eligible))
    recalls = []
    for query in subject.queries[:10]:
        rows = assert_sound(subject, query, k, mask)
        exact = eligible[np.argsort(-(subject.vectors[eligible] @ query))[:k]]
        recalls.append(len(np.intersect1d(rows, exact)) / k)
    assert np.mean(recalls) >= TARGET - 0.02


def test_more_than_there_are_gives_all_there_are(subject: Subject) -> None:
    mask = random_mask(0.003)
    rows = assert_sound(subject, subject.queries[0], 10_000, mask)
    assert np.sort(rows).tolist() == np.flatnonzero(mask).tolist()
    assert_sound(subject, subject.queries[0], ITEM_COUNT + 5, np.ones(ITEM_COUNT, np.bool_))


def test_an_answer_is_full_though_everything_eligible_lies_far_away(subject: Subject) -> None:
    """The worst case for cells: what may be shown is what the query likes least."""
    query = subject.queries[0]
    scores = subject.vectors @ query
    mask = scores < np.quantile(scores, 0.04)
    assert_sound(subject, query, 1000, mask)


def test_one_wanted_one_eligible_none_wanted_none_eligible(subject: Subject) -> None:
    query = subject.queries[0]
    assert_sound(subject, query, 1, np.ones(ITEM_COUNT, np.bool_))
    for row in (0, ITEM_COUNT - 1):
        only = np.zeros(ITEM_COUNT, np.bool_)
        only[row] = True
        assert assert_sound(subject, query, 10, only).tolist() == [row]
    assert_sound(subject, query, 0, np.ones(ITEM_COUNT, np.bool_))
    assert_sound(subject, query, 10, np.zeros(ITEM_COUNT, np.bool_))


def test_padding_bits_past_the_last_item_are_not_items(subject: Subject) -> None:
    bitmap = np.zeros((ITEM_COUNT + 7) // 8, np.uint8)
    bitmap[-1] = 255
    rows, _ = subject.index.search(subject.queries[0], 10, bitmap)
    assert rows.tolist() == [ITEM_COUNT - 1]


@given(seed=st.integers(0, 2**32 - 1), log_share=st.floats(-5, 0), k=st.integers(0, 2000), which=st.integers(0, 39))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bitmap_gives_a_sound_answer(subject: Subject, seed: int, log_share: float, k: int, which: int) -> None:
    assert_sound(subject, subject.queries[which], k, random_mask(10**log_share, seed))


def test_concurrent_searches_answer_as_serial_ones(subject: Subject) -> None:
    bitmaps = [pack_mask(random_mask(share, seed)) for seed, share in enumerate((1.0, 0.6, 0.2, 0.01))]
    jobs = [(query, bitmap) for query in subject.queries[:12] for bitmap in bitmaps]
    serial = [subject.index.search(query, 200, bitmap) for query, bitmap in jobs]
    with ThreadPoolExecutor(8) as pool:
        concurrent = list(pool.map(lambda job: subject.index.search(job[0], 200, job[1]), jobs))
    for (rows, scores), (other_rows, other_scores) in zip(serial, concurrent, strict=True):
        np.testing.assert_array_equal(rows, other_rows)
        np.testing.assert_array_equal(scores, other_scores)


def test_inputs_may_be_read_only_and_are_left_as_they_were(subject: Subject) -> None:
    query, bitmap = subject.queries[1].copy(), pack_mask(random_mask(0.5))
    query_before, bitmap_before = query.tobytes(), bitmap.tobytes()
    query.flags.writeable = bitmap.flags.writeable = False
    rows, scores = subject.index.search(query, 100, bitmap)
    assert (query.tobytes(), bitmap.tobytes()) == (query_before, bitmap_before)
    rows[0], scores[0] = -1, 0.0  # an answer is the caller's own
    assert subject.index.search(query, 100, bitmap)[0][0] != -1


def test_a_query_may_be_a_column_of_a_matrix(subject: Subject) -> None:
    column = np.repeat(subject.queries[0][:, None], 2, axis=1)[:, 0]
    assert not column.flags.c_contiguous
    for bitmap in (everything(), pack_mask(np.arange(ITEM_COUNT) < 1000)):
        rows, scores = subject.index.search(column, 20, bitmap)
        expected_rows, expected_scores = subject.index.search(subject.queries[0], 20, bitmap)
        np.testing.assert_array_equal(rows, expected_rows)
        np.testing.assert_array_equal(scores, expected_scores)


def test_a_zero_query_still_gets_a_full_answer(subject: Subject) -> None:
    assert_sound(subject, np.zeros(DIM, np.float32), 100, np.ones(ITEM_COUNT, np.bool_))


def test_wrong_shapes_and_dtypes_are_refused(subject: Subject) -> None:
    query = subject.queries[0]
    for bad_query in (query[:-1], query.astype(np.float64), query[None]):
        with pytest.raises(ValueError, match="queries of 32"):
            subject.index.search(bad_query, 10, everything())
    for bad_bitmap in (everything()[:-1], everything().astype(np.int64), np.ones(ITEM_COUNT, np.bool_)):
        with pytest.raises(ValueError, match="bitmap of 7501 bytes"):
            subject.index.search(query, 10, bad_bitmap)
    with pytest.raises(ValueError, match="k must not"):
        subject.index.search(query, -1, everything())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_query_is_refused(subject: Subject, value: float) -> None:
    query = subject.queries[0].copy()
    query[5] = value
    with pytest.raises(EngineError, match="NaN or infinite"):
        subject.index.search(query, 10, everything())
