"""Retrieval on a device: the same candidates as on the processor, then its time by items, dimensions and batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from engine.config.serving import DeviceConfig
from engine.errors import EngineError
from engine.kernels.membership import pack_mask
from engine.kernels.scan import scan_eligible
from engine.kernels.topk import top_k
from engine.retrieval.overfetch import OverFetchingIndex, Searcher, SearchRequest
from engine.types import Float32Array
from engine_bench.float16 import Float16Searcher
from engine_bench.gpu_floors import Floors
from engine_bench.timing import time_calls

K: Final = 1000
_QUERIES: Final = 256
_CHECKED_QUERIES: Final = 8
# Two scores this close are the same to float16: unit vectors, products of components below 1.
TOLERANCE: Final = 2e-3
_ITEMS_PER_CLUSTER: Final = 500
_CHUNK: Final = 262_144


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to search. exact: its candidates must be the best ones; of others the recall is noted."""

    name: str
    open: Callable[[Float32Array], Searcher]
    exact: bool = True


def kinds(device: str, cuda_device: int) -> list[Kind]:
    """What is measured on "cpu" and on "cuda". The bundle's cells (index = "ivf") belong to a bundle, and are not."""
    if device == "cpu":
        return [Kind("exact-float16", Float16Searcher)]
    from engine.adapters.faiss.gpu_index import open_searcher

    def kind(name: str, exact: bool, **settings: Any) -> Kind:
        config = DeviceConfig(retrieval="cuda", cuda_device=cuda_device, **settings)
        return Kind(name, lambda vectors: open_searcher(vectors, config), exact)

    return [
        kind("exact-fused", True, kernels="fused"),
        kind("exact-cuvs", True, kernels="cuvs"),
        kind("exact-classic", True, kernels="classic"),
        kind("cagra", False, index="cagra"),
    ]


def make_vectors(item_count: int, dim: int, seed: int) -> tuple[Float32Array, Float32Array]:
    """Clustered unit vectors: items float32 (item_count, dim) and queries float32 (256, dim)."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(item_count // _ITEMS_PER_CLUSTER, 1), dim), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    items = np.empty((item_count, dim), np.float32)
    for start in range(0, item_count, _CHUNK):
        items[start : start + _CHUNK] = _around(centres, min(_CHUNK, item_count - start), rng)
    return items, _around(centres, _QUERIES, rng)


def _around(centres: Float32Array, count: int, rng: np.random.Generator) -> Float32Array:
    dim = centres.shape[1]
    own = rng.standard_normal((count, dim), dtype=np.float32) * np.float32(0.6 / np.sqrt(dim))
    vectors: Float32Array = centres[rng.integers(0, len(centres), count)] + own
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def measure_retrieval(
    kind: Kind, vectors: Float32Array, queries: Float32Array, batches: Sequence[int], seconds: float, floors: Floors
) -> dict[str, Any]:
    """Check one kind of search against exact float32 scores, then time it.

    Returns: `recall_at_k`; `all_eligible`, a list by batch size, with the floor of an exact scan; and `filtered`, by
    share of eligible items, the smallest and the largest batch, each query with a bitmap of its own; `failed`, those of
    the latter that ended with an error.

    Raises EngineError where an exact kind misses an item, beyond float16's error.
    """
    k = min(K, len(vectors))
    index = OverFetchingIndex(kind.open(vectors), vectors)
    recall = check_candidates(index, vectors, queries[:_CHECKED_QUERIES], k, kind)
    everything = [np.ones(len(vectors), np.bool_)]
    by_batch = [
        {
            "batch": batch,
            **_timed(index, _requests(index, queries, everything, k), batch, seconds),
            "floor_ms": round(floors.scan_ms(len(vectors), vectors.shape[1], batch), 4) if kind.exact else None,
        }
        for batch in batches
    ]
    filtered: list[dict[str, Any]] = []
    failed: list[str] = []
    rng = np.random.default_rng(0)
    for share in (0.5, 0.1, 0.02):
        masks = [rng.random(len(vectors)) < share for _ in range(4)]
        requests = _requests(index, queries, masks, k)
        for batch in (min(batches), max(batches)):
            try:
                filtered.append({"share": share, "batch": batch, **_timed(index, requests, batch, seconds)})
            except EngineError as error:  # a library's limit is a result as well
                failed.append(f"{share:.0%} eligible, batch of {batch}: {error}")
    return {
        "kind": kind.name,
        "items": len(vectors),
        "dim": vectors.shape[1],
        "k": k,
        "recall_at_k": recall,
        "all_eligible": by_batch,
        "filtered": filtered,
        "failed": failed,
    }


def check_candidates(
    index: OverFetchingIndex, vectors: Float32Array, queries: Float32Array, k: int, kind: Kind
) -> float:
    """The share of the exact best k that is found; of items with equal scores any is as good.

    Raises EngineError as above.
    """
    everything = np.full((len(vectors) + 7) // 8, 255, np.uint8)
    recalls = []
    for query in queries:
        rows, scores = index.search(query, k, everything)
        all_rows, exact = scan_eligible(vectors, query, everything)
        best = exact[top_k(exact, k)]
        reached = exact[rows] >= best[-1] - TOLERANCE
        recalls.append(np.count_nonzero(exact[rows] >= best[-1]) / len(best))
        if not kind.exact:
            continue
        missed = np.setdiff1d(all_rows[exact > best[-1] + TOLERANCE], rows)
        if not reached.all() or len(missed) or np.abs(scores - exact[rows]).max() > TOLERANCE:
            raise EngineError(
                f"{kind.name} over {len(vectors)} x {vectors.shape[1]} does not find what a scan finds: "
                f"{np.count_nonzero(~reached)} of {k} candidates are too low, {len(missed)} better ones are missing"
            )
    return round(float(np.mean(recalls)), 4)


def _requests(index: OverFetchingIndex, queries: Float32Array, masks: Sequence[Any], k: int) -> list[SearchRequest]:
    bitmaps = [pack_mask(mask) for mask in masks]
    return [index.request(query, k, bitmaps[position % len(bitmaps)]) for position, query in enumerate(queries)]


def _timed(index: OverFetchingIndex, requests: list[SearchRequest], batch: int, seconds: float) -> dict[str, Any]:
    def search(position: int) -> None:
        first = position * batch % len(requests)
        asked = (requests + requests)[first : first + batch]
        for request, found in zip(asked, index.search_batch(asked), strict=True):
            if found is None:
                index.scan(request)

    return time_calls(search, seconds)
