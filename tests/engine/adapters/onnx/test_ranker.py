from pathlib import Path

import numpy as np
import pytest

from engine.adapters.onnx.ranker import OnnxRanker
from engine.errors import BundleError, EngineError
from engine.features.schema import ITEM_DYNAMIC
from engine.training.ranker.train import export_ranker
from engine.types import RankingContext
from tests.engine.training.ranker import small


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranker") / "ranker.onnx"
    export_ranker(small.ranker(), *small.tables(), path)
    return path


def context(position: int) -> RankingContext:
    sample = small.ranker().sample
    return RankingContext(
        sample.query[position], sample.session[position], sample.collaborative[position], sample.dense[position],
        sample.codes[position],
    )  # fmt: skip


def test_a_batch_scores_as_its_requests_one_by_one(graph: Path) -> None:
    ranker = OnnxRanker(graph, small.ranker().schema, *small.tables())
    sample = small.ranker().sample
    rows = np.random.default_rng(0).integers(0, small.world().item_count, (16, 50))
    batch = ranker.score_batch(sample.query, sample.session, sample.collaborative, sample.dense, sample.codes, rows)
    singles = [ranker.score(context(i), rows[i]) for i in range(16)]
    np.testing.assert_allclose(batch, singles, rtol=1e-4)


def test_counts_written_in_place_reach_the_next_score(graph: Path) -> None:
    table, dynamic = (array.copy() for array in small.tables())
    ranker = OnnxRanker(graph, small.ranker().schema, table, dynamic)
    rows = np.arange(50)
    before = ranker.score(context(0), rows)
    dynamic[7] += 1.0
    after = ranker.score(context(0), rows)
    assert after[7] != before[7]
    others = rows != 7
    np.testing.assert_allclose(after[others], before[others], rtol=1e-6)


def test_tables_are_read_from_a_memory_map(graph: Path, tmp_path: Path) -> None:
    table, dynamic = small.tables()
    np.save(tmp_path / "table.npy", table)
    mapped = np.load(tmp_path / "table.npy", mmap_mode="r")
    ranker = OnnxRanker(graph, small.ranker().schema, mapped, dynamic)
    expected = OnnxRanker(graph, small.ranker().schema, table, dynamic)
    rows = np.arange(50)
    np.testing.assert_array_equal(ranker.score(context(0), rows), expected.score(context(0), rows))


@pytest.mark.parametrize("row", [-1, 10**6])
def test_a_row_outside_the_tables_is_refused(graph: Path, row: int) -> None:
    ranker = OnnxRanker(graph, small.ranker().schema, *small.tables())
    with pytest.raises(EngineError, match="candidate rows must lie in"):
        ranker.score(context(0), np.array([0, row]))


def test_scores_that_are_not_finite_are_refused(graph: Path) -> None:
    table, dynamic = (array.copy() for array in small.tables())
    table[3, 0] = np.nan
    ranker = OnnxRanker(graph, small.ranker().schema, table, dynamic)
    assert len(ranker.score(context(0), np.array([2]))) == 1
    with pytest.raises(EngineError, match="not finite"):
        ranker.score(context(0), np.array([2, 3]))


def test_a_vector_of_another_space_is_refused(graph: Path) -> None:
    ranker = OnnxRanker(graph, small.ranker().schema, *small.tables())
    good = context(0)
    bad = RankingContext(np.zeros(9, np.float32), good.session, good.collaborative, good.dense, good.codes)
    with pytest.raises(EngineError, match="ranker: "):
        ranker.score(bad, np.array([0]))


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ranker.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"ranker\.onnx: not a usable ONNX graph"):
        OnnxRanker(path, small.ranker().schema, *small.tables())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table, dynamic: (table[:, 1:].copy(), dynamic), "item_table is float32"),
        (lambda table, dynamic: (table.astype(np.float64), dynamic), "item_table is float64"),
        (lambda table, dynamic: (np.asfortranarray(table), dynamic), "item_table is float32"),
        (lambda table, dynamic: (table, dynamic[:, :-1].copy()), f"wanted is C-contiguous.* {len(ITEM_DYNAMIC)} col"),
        (lambda table, dynamic: (table, dynamic[:-1].copy()), "item_table has 120 rows, item_dynamic has 119"),
    ],
)
def test_tables_that_do_not_fit_the_schema_are_refused(graph: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BundleError, match=message):
        OnnxRanker(graph, small.ranker().schema, *change(*small.tables()))


def test_a_schema_of_another_bundle_is_refused(graph: Path) -> None:
    schema = small.ranker().schema
    other = schema.model_copy(update={"profile": (*schema.profile, "one_more")})
    with pytest.raises(BundleError, match="input dense is"):
        OnnxRanker(graph, other, *small.tables())
