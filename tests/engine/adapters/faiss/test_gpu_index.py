"""What of the GPU index needs no device: whether a graph finds enough to serve."""

import numpy as np
import pytest

from engine.adapters.faiss.gpu_index import require_recall
from engine.errors import ConfigError
from engine.retrieval.overfetch import Found
from engine_bench.float16 import Float16Searcher
from tests.contracts.clustered import clustered

VECTORS, _ = clustered(5_000, 16, query_count=1, seed=2)


class Nearsighted(Float16Searcher):
    """Finds nothing of one half of the catalogue, as a graph of which no edge leads there."""

    def search(self, queries: np.ndarray, k: int) -> Found:
        rows, scores = super().search(queries, min(2 * k, self.item_count))
        order = np.argsort(rows >= self.item_count // 2, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def test_an_exact_search_may_serve() -> None:
    require_recall(Float16Searcher(VECTORS), VECTORS)


def test_one_that_overlooks_half_of_the_catalogue_may_not() -> None:
    with pytest.raises(ConfigError, match=r"finds \d+% of the best 1000 items"):
        require_recall(Nearsighted(VECTORS), VECTORS)


@pytest.mark.parametrize("count", [1, 3, 50])
def test_a_small_catalogue_is_judged_as_well(count: int) -> None:
    require_recall(Float16Searcher(VECTORS[:count]), VECTORS[:count])
