from pathlib import Path

import faiss
import numpy as np
import pytest

from engine.adapters.faiss.build import IndexParameters, build_index, recode
from engine.adapters.faiss.index import FaissIndex, read_index
from engine.errors import DataError
from tests.contracts.clustered import clustered


def mean_recall(index: FaissIndex, vectors: np.ndarray, queries: np.ndarray, k: int) -> float:
    everything = np.full((len(vectors) + 7) // 8, 255, np.uint8)
    recalls = []
    for query in queries:
        rows, _ = index.search(query, k, everything)
        exact = np.argpartition(-(vectors @ query), k)[:k]
        recalls.append(len(np.intersect1d(rows, exact)) / k)
    return float(np.mean(recalls))


def test_a_small_catalogue_gets_an_exact_index(tmp_path: Path) -> None:
    vectors, _ = clustered(300, 16, query_count=1, seed=0)
    parameters = build_index(vectors, tmp_path / "index.faiss")
    assert (parameters.factory, parameters.partition, parameters.nprobe) == ("Flat", "none", 1)
    assert parameters.recall_at_k == 1.0
    assert parameters.recall_k == 300  # no deeper than there are items
    assert parameters.scanned_share == 1.0


def test_recorded_recall_is_what_a_search_with_the_recorded_parameters_has(tmp_path: Path) -> None:
    vectors, queries = clustered(20_000, 32, query_count=100, seed=1, items_per_cluster=100)
    path = tmp_path / "index.faiss"
    parameters = build_index(vectors, path, queries=queries, k=200, exact_below=0)
    assert parameters.factory == "IVF256,SQ8"
    assert parameters.recall_at_k >= 0.97
    measured = mean_recall(FaissIndex.open(path, parameters), vectors, queries, 200)
    # Calibration forgives exact ties and rounding; this count of rows does not. A search may visit more cells.
    assert parameters.recall_at_k - 2e-3 <= measured <= parameters.recall_at_k + 0.01
    assert parameters.scanned_share < 0.9


def test_a_lower_target_visits_fewer_cells(tmp_path: Path) -> None:
    vectors, queries = clustered(10_000, 16, query_count=50, seed=2, items_per_cluster=50)
    low, high = (
        build_index(vectors, tmp_path / "index.faiss", queries=queries, target_recall=target, k=100, exact_below=0)
        for target in (0.6, 0.97)
    )
    assert low.nprobe < high.nprobe
    assert 0.6 <= low.recall_at_k < high.recall_at_k
    for share, nprobe in high.filtered_nprobe:
        assert share < 1
        assert nprobe >= high.nprobe


def test_float16_codes_where_eight_bits_fall_short(tmp_path: Path) -> None:
    """Outliers that no query likes stretch the 8-bit steps until the others cannot be told apart."""
    vectors, queries = (np.abs(made) for made in clustered(5_000, 8, query_count=50, seed=3))
    vectors[:400] = -1000 * np.abs(np.random.default_rng(3).standard_normal((400, 8), dtype=np.float32))
    parameters = build_index(vectors, tmp_path / "index.faiss", queries=queries, k=50, exact_below=0)
    assert parameters.factory.endswith("SQfp16")
    assert parameters.recall_at_k >= 0.97


def test_other_codes_leave_the_cells_as_they_were(tmp_path: Path) -> None:
    vectors, queries = clustered(20_000, 16, query_count=20, seed=9)
    built = build_index(vectors, tmp_path / "index.faiss", queries=queries, target_recall=0.9, k=100, exact_below=0)
    stored = read_index(tmp_path / "index.faiss", built.dim, built.item_count)
    assert stored.sq.qtype == faiss.ScalarQuantizer.QT_8bit
    halves = recode(stored, vectors, "SQfp16")
    assert halves.sq.qtype == faiss.ScalarQuantizer.QT_fp16
    stored.nprobe = halves.nprobe = stored.nlist
    scores, rows = halves.search(queries, 100)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, rows, 1), atol=2e-3)
    halves.nprobe = stored.nprobe = 1
    for cell in (0, stored.nlist - 1):
        assert halves.invlists.list_size(cell) == stored.invlists.list_size(cell)
    found, before = halves.search(queries, 10)[1], stored.search(queries, 10)[1]
    assert np.mean([len(np.intersect1d(*pair)) / 10 for pair in zip(found, before, strict=True)]) > 0.8


@pytest.mark.parametrize("log_norm_deviation", [0.3, 1.0])
def test_recall_holds_for_vectors_of_unequal_length(tmp_path: Path, log_norm_deviation: float) -> None:
    """Matrix factorization gives popular items long vectors, and the longest win in every direction."""
    vectors, queries = clustered(20_000, 32, query_count=120, seed=4, log_norm_deviation=log_norm_deviation)
    path = tmp_path / "index.faiss"
    parameters = build_index(vectors, path, queries=queries[:60], k=200, exact_below=0)
    index = FaissIndex.open(path, parameters)
    assert parameters.recall_at_k >= 0.97
    assert mean_recall(index, vectors, queries[60:], 200) >= 0.96
    if log_norm_deviation == 1.0:
        # By direction alone nearly everything has to be scanned; cells by distance set the long items apart.
        assert parameters.partition == "euclidean"
        assert parameters.scanned_share < 0.5


def test_default_queries_are_made_from_the_items(tmp_path: Path) -> None:
    vectors, queries = clustered(5_000, 16, query_count=50, seed=5)
    parameters = build_index(vectors, tmp_path / "index.faiss", k=100, exact_below=0)
    assert parameters.recall_query_count == 256
    assert mean_recall(FaissIndex.open(tmp_path / "index.faiss", parameters), vectors, queries, 100) >= 0.95


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    vectors, queries = clustered(5_000, 16, query_count=20, seed=6)
    files = [tmp_path / name for name in ("a", "b")]
    for path in files:
        build_index(vectors, path, queries=queries, k=50, seed=9, exact_below=0)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_duplicates_and_zero_vectors_are_indexed(tmp_path: Path) -> None:
    vectors = np.zeros((3_000, 8), np.float32)
    vectors[1_000:] = 1.0
    parameters = build_index(vectors, tmp_path / "index.faiss", k=100, exact_below=0)
    index = FaissIndex.open(tmp_path / "index.faiss", parameters)
    rows, scores = index.search(np.ones(8, np.float32), 3_000, np.full(375, 255, np.uint8))
    assert np.sort(rows).tolist() == list(range(3_000))
    np.testing.assert_allclose(scores, [8.0] * 2_000 + [0.0] * 1_000, atol=0.05)


def test_progress_ends_each_step_and_threads_are_given_back(tmp_path: Path) -> None:
    vectors, _ = clustered(3_000, 8, query_count=1, seed=7)
    last: dict[str, tuple[int, int]] = {}
    before = faiss.omp_get_max_threads()
    build_index(
        vectors,
        tmp_path / "index.faiss",
        k=50,
        exact_below=0,
        progress=lambda done, total, message: last.update({message: (done, total)}),
    )
    assert last
    assert all(done == total for done, total in last.values())
    assert faiss.omp_get_max_threads() == before


def test_parameters_survive_json(tmp_path: Path) -> None:
    vectors, _ = clustered(3_000, 8, query_count=1, seed=8)
    parameters = build_index(vectors, tmp_path / "index.faiss", k=50, exact_below=0)
    assert IndexParameters.model_validate_json(parameters.model_dump_json()) == parameters
    assert read_index(tmp_path / "index.faiss", 8, 3_000).nlist == int(parameters.factory[3:].split(",")[0])


def test_bad_input_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    vectors = np.ones((10, 4), np.float32)
    with pytest.raises(DataError, match="no item vectors"):
        build_index(vectors[:0], path)
    broken = vectors.copy()
    broken[7, 2] = np.nan
    with pytest.raises(DataError, match="row 7 is not finite"):
        build_index(broken, path)
    with pytest.raises(ValueError, match="must be float32"):
        build_index(vectors.astype(np.float64), path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not match item vectors of 4"):
        build_index(vectors, path, queries=np.ones((3, 5), np.float32))
    with pytest.raises(ValueError, match="cannot be reached"):
        build_index(vectors, path, target_recall=1.5)
    assert not path.exists()
