import re
import threading
from pathlib import Path

import faiss
import numpy as np
import pytest

from engine.adapters.faiss.build import build_index
from engine.adapters.faiss.index import FaissIndex, FaissInvertedLists, IndexParameters, verify_index
from engine.adapters.faiss.inverted_lists import InvertedLists
from engine.adapters.faiss.visits import Partition, search_cells
from engine.errors import BundleError
from tests.contracts.clustered import clustered

ITEM_COUNT, DIM = 4_000, 16


@pytest.fixture(scope="module", params=["flat", "ivf"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, IndexParameters]:
    vectors, queries = clustered(ITEM_COUNT, DIM, query_count=20, seed=0)
    path = tmp_path_factory.mktemp(request.param) / "index.faiss"
    exact_below = 0 if request.param == "ivf" else ITEM_COUNT + 1
    return path, build_index(vectors, path, queries=queries, k=100, exact_below=exact_below)


@pytest.fixture
def built_cells(built: tuple[Path, IndexParameters]) -> tuple[Path, IndexParameters]:
    if built[1].partition == "none":
        pytest.skip("an exact scan has no cells")
    return built


def test_parameters_are_taken_as_recorded_in_json(built: tuple[Path, IndexParameters]) -> None:
    path, parameters = built
    index = FaissIndex.open(path, parameters.model_dump(mode="json"))
    assert (index.item_count, index.dim) == (ITEM_COUNT, DIM)


def test_a_good_file_verifies(built: tuple[Path, IndexParameters]) -> None:
    verify_index(built[0], DIM, ITEM_COUNT)


@pytest.mark.parametrize("kept_share", [0.0, 0.0001, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(
    built: tuple[Path, IndexParameters], tmp_path: Path, kept_share: float
) -> None:
    content = built[0].read_bytes()
    path = tmp_path / "short.faiss"
    path.write_bytes(content[: int(len(content) * kept_share)])
    with pytest.raises(BundleError, match=re.escape(str(path))):
        verify_index(path, DIM, ITEM_COUNT)
    with pytest.raises(BundleError, match=r"truncated|starts with b''"):
        FaissIndex.open(path, built[1])


@pytest.mark.parametrize("cut", [1, 10, 100, 1000])
def test_a_file_that_lacks_only_its_end_is_refused(
    built: tuple[Path, IndexParameters], tmp_path: Path, cut: int
) -> None:
    """The last byte of an inverted file is the high byte of a row and always 0, so that only there one may be lost."""
    path = tmp_path / "short.faiss"
    path.write_bytes(built[0].read_bytes()[:-cut])
    if cut == 1 and built[1].partition != "none":
        verify_index(path, DIM, ITEM_COUNT)
    else:
        with pytest.raises(BundleError, match=re.escape(str(path))):
            verify_index(path, DIM, ITEM_COUNT)


def test_other_content_and_absence_are_refused(built: tuple[Path, IndexParameters], tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    with pytest.raises(BundleError, match="no such index file"):
        FaissIndex.open(path, built[1])
    path.write_bytes(b"not an index at all" * 100)
    with pytest.raises(BundleError, match="not an item index: it starts with b'not '"):
        FaissIndex.open(path, built[1])


def test_another_dimension_count_or_metric_is_refused(built: tuple[Path, IndexParameters], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="vectors of 16, where 15 are expected"):
        verify_index(built[0], 15, ITEM_COUNT)
    with pytest.raises(BundleError, match="of 4000 items, where 3999 are expected"):
        verify_index(built[0], DIM, 3_999)
    with pytest.raises(BundleError, match="too few for 9000 vectors of 16"):
        verify_index(built[0], DIM, 9_000)
    with pytest.raises(BundleError, match="4000 items, where 5 are expected"):
        FaissIndex.open(built[0], built[1].model_copy(update={"item_count": 5}))
    vectors = np.eye(3, DIM, dtype=np.float32)
    euclidean = faiss.index_factory(DIM, "IVF1,SQ8", faiss.METRIC_L2)
    euclidean.train(vectors)
    euclidean.add(vectors)
    faiss.write_index(euclidean, str(tmp_path / "euclidean.faiss"))
    with pytest.raises(BundleError, match="another metric"):
        verify_index(tmp_path / "euclidean.faiss", DIM, 3)


def test_parameters_that_do_not_parse_are_refused(built: tuple[Path, IndexParameters]) -> None:
    recorded = built[1].model_dump(mode="json")
    with pytest.raises(BundleError, match="index parameters: nprobe"):
        FaissIndex.open(built[0], {**recorded, "nprobe": 0})
    with pytest.raises(BundleError, match="index parameters: surprise"):
        FaissIndex.open(built[0], {**recorded, "surprise": 1})


@pytest.mark.parametrize(
    "vectors",
    [
        np.ones((ITEM_COUNT, DIM - 1), np.float32),
        np.ones((ITEM_COUNT + 1, DIM), np.float32),
        np.ones((ITEM_COUNT, DIM), np.float64),
        np.ones((ITEM_COUNT, 2 * DIM), np.float32)[:, :DIM],
    ],
    ids=["narrow", "long", "float64", "strided"],
)
def test_item_vectors_that_do_not_fit_are_refused(built: tuple[Path, IndexParameters], vectors: np.ndarray) -> None:
    with pytest.raises(BundleError, match="does not go with item vectors"):
        FaissIndex.open(*built, vectors)


def test_item_vectors_may_be_the_first_columns_of_a_wider_table(built: tuple[Path, IndexParameters]) -> None:
    vectors, queries = clustered(ITEM_COUNT, DIM, query_count=20, seed=0)
    table = np.hstack([vectors, np.full((ITEM_COUNT, 3), np.nan, np.float32)])
    few = np.zeros(ITEM_COUNT // 8, np.uint8)
    few[::40] = 0b100001
    rows, scores = FaissIndex.open(*built, table).search(queries[0], 5, few)
    eligible = np.flatnonzero(np.unpackbits(few, bitorder="little"))
    expected = eligible[np.argsort(-(vectors[eligible] @ queries[0]))[:5]]
    assert rows.tolist() == expected.tolist()
    np.testing.assert_allclose(scores, vectors[expected] @ queries[0], atol=1e-5)


@pytest.mark.parametrize(("rows", "complaint"), [([0, 1, 1], "exactly once"), ([0, 1, 7], "rows that do not exist")])
def test_rows_that_are_missing_doubled_or_out_of_range_are_found(
    tmp_path: Path, rows: list[int], complaint: str
) -> None:
    vectors = np.eye(3, 4, dtype=np.float32)
    index = faiss.index_factory(4, "IVF1,SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add_with_ids(vectors, np.array(rows))
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    with pytest.raises(BundleError, match=complaint):
        verify_index(tmp_path / "index.faiss", 4, 3)


def test_the_file_is_mapped_read_only_and_not_copied(built: tuple[Path, IndexParameters]) -> None:
    """Worker processes are to share the index's pages: they must be a file's, and nobody may write to them."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    path, parameters = built
    content = path.read_bytes()
    path.chmod(0o444)
    index = FaissIndex.open(path, parameters)
    index.search(np.ones(DIM, np.float32), 10, np.full(ITEM_COUNT // 8, 255, np.uint8))
    mapped = [line.split() for line in maps.read_text().splitlines() if line.endswith(str(path))]
    assert {fields[1] for fields in mapped} == {"r--s"}
    sizes = [int(end, 16) - int(start, 16) for start, end in (fields[0].split("-") for fields in mapped)]
    assert sum(sizes) >= len(content)
    assert path.read_bytes() == content


@pytest.mark.parametrize("built", ["flat"], indirect=True)
def test_each_thread_that_searches_with_faiss_runs_on_itself_alone(built: tuple[Path, IndexParameters]) -> None:
    index = FaissIndex.open(*built)
    seen: list[int] = []

    def search() -> None:
        faiss.omp_set_num_threads(2)  # what a fresh thread would start with on a machine of two cores
        index.search(np.ones(DIM, np.float32), 10, np.full(ITEM_COUNT // 8, 255, np.uint8))
        seen.append(faiss.omp_get_max_threads())

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1, 1, 1]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("k", [1, 50, 700, ITEM_COUNT])
def test_the_kernel_finds_in_mapped_cells_what_faiss_finds(
    built_cells: tuple[Path, IndexParameters], share: float, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums are rounded otherwise, so that which of two items comes first is decided by more than that alone."""
    ours, theirs = FaissIndex.open(*built_cells), FaissIndex.open(*built_cells)
    assert isinstance(ours._cells, InvertedLists)
    monkeypatch.setattr(theirs, "_cells", FaissInvertedLists(theirs._index))
    rng = np.random.default_rng(k)
    eligible = np.packbits(rng.random(ITEM_COUNT) < share, bitorder="little")
    for query in clustered(ITEM_COUNT, DIM, query_count=5, seed=1)[1]:
        rows, scores = ours.search(query, k, eligible)
        expected_rows, expected_scores = theirs.search(query, k, eligible)
        assert rows.dtype == np.int64
        assert len(np.unique(rows)) == len(rows)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
        clear = scores > scores[-1] + 1e-5
        assert set(rows[clear]) <= set(expected_rows)
        apart = np.diff(scores, prepend=np.inf) < -1e-5
        apart[:-1] &= apart[1:]
        np.testing.assert_array_equal(rows[apart & clear], expected_rows[apart & clear])


@pytest.mark.parametrize(
    ("factory", "why"),
    [("Flat", "no cells"), ("IVF4,SQfp16", "codes of 16 bits"), ("IVF4,Flat", "no codes")],
)
def test_what_is_no_file_of_8_bit_cells_is_left_to_faiss(factory: str, why: str) -> None:
    index = faiss.index_factory(4, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(np.eye(8, 4, dtype=np.float32))
    index.add(np.eye(8, 4, dtype=np.float32))
    assert InvertedLists.of(index) is None, why


def test_empty_cells_and_an_index_in_memory_are_searched() -> None:
    vectors = np.eye(3, 4, dtype=np.float32)
    index = faiss.index_factory(4, "IVF3,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    assert InvertedLists.of(index) is None
    index.add(vectors[:2])
    cells = InvertedLists.of(index)
    assert cells is not None
    partition = Partition.of(index)
    rows, scores = search_cells(partition, cells, vectors[1], 2, 1, np.array([0b111], np.uint8), 2)
    assert rows.tolist() == [1, 0]
    np.testing.assert_allclose(scores, [1.0, 0.0], atol=0.02)
