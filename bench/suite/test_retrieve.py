"""Retrieval on one core, with its recall: by share of items that may be shown, and by depth, length and catalogue."""

import itertools
from typing import Any

import numpy as np
import pytest

from engine.adapters.faiss.index import FaissIndex
from engine.kernels.membership import pack_mask
from engine.types import BoolArray
from suite.conftest import Catalogue
from suite.serving import exact_rows, mean_recall

K, DEPTHS = 1000, (100, 500, 1000, 2000)
RECALL_QUERIES = 64
# What is in stock, live and allowed on a surface of the synthetic world: always a bitmap, as in every request.
USUAL_SHARE = 0.95


@pytest.mark.parametrize("with_vectors", [True, False], ids=["vectors", "index-only"])
@pytest.mark.parametrize("eligible_share", [1.0, 0.99, 0.5, 0.1, 0.01, 0.001])
def test_retrieve(benchmark: Any, catalogue: Catalogue, eligible_share: float, with_vectors: bool) -> None:
    recall = _measure(benchmark, catalogue, K, eligible_share, with_vectors)
    # The queries of this recall are not those of calibration: 64 of them put its error at a few thousandths.
    assert recall >= 0.96


@pytest.mark.parametrize("k", DEPTHS)
def test_retrieve_depth(benchmark: Any, catalogue_of_dim: Catalogue, k: int) -> None:
    """The index is calibrated for the top 1000; what it finds of other depths is in the figures."""
    _measure(benchmark, catalogue_of_dim, k, USUAL_SHARE, True)


@pytest.mark.parametrize("hidden_share", [0.01, 0.1, 0.5, 0.9])
def test_retrieve_without_the_nearest(benchmark: Any, catalogue: Catalogue, hidden_share: float) -> None:
    """A filter that has to do with the query: the items nearest to the mean of the queries may not be shown."""
    similarity = catalogue.vectors @ catalogue.queries[:RECALL_QUERIES].mean(axis=0)
    mask = similarity < np.quantile(similarity, 1 - hidden_share)
    assert _measure(benchmark, catalogue, K, 1 - hidden_share, True, mask) >= 0.9


def _measure(
    benchmark: Any,
    catalogue: Catalogue,
    k: int,
    eligible_share: float,
    with_vectors: bool,
    mask: BoolArray | None = None,
) -> float:
    parameters = catalogue.parameters
    index = FaissIndex.open(catalogue.index_path, parameters, catalogue.vectors if with_vectors else None)
    if mask is None:
        mask = np.random.default_rng(0).random(index.item_count) < eligible_share
    bitmap = pack_mask(mask)
    measured = catalogue.queries[:RECALL_QUERIES]
    recall = mean_recall(index, measured, k, bitmap, exact_rows(catalogue.vectors, measured, mask, k))
    benchmark.extra_info.update(
        items=index.item_count,
        dim=index.dim,
        k=k,
        eligible_share=eligible_share,
        recall_at_k=recall,
        index=parameters.factory,
        nprobe=parameters.nprobe,
        scanned_share=round(parameters.scanned_share, 4),
        build_seconds=round(parameters.build_seconds, 1),
        calibrated_recall=round(parameters.recall_at_k, 4),
    )
    queries = itertools.cycle(catalogue.queries)
    benchmark.pedantic(
        lambda query: index.search(query, k, bitmap),
        setup=lambda: ((next(queries),), {}),
        rounds=200,
        warmup_rounds=20,
    )
    return recall
