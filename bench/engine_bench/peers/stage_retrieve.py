"""Stage retrieve: the bundle's index against other libraries, each at the recall of the bundle's or above."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.adapters.faiss.calibrate import Truth, recalls_of
from engine.adapters.faiss.index import FaissIndex
from engine.bundle.bundle import INDEX_FILE, Bundle
from engine.kernels.membership import pack_mask
from engine.types import Float32Array, Int64Array
from engine_bench.machine import Progress
from engine_bench.peers.ann import AnnPeer, Parameters, build_or_open
from engine_bench.peers.settings import missing
from engine_bench.timing import in_turns, percentiles

_K = 1000
# Enough to tell which of several settings of one library is the quickest.
_TRIAL_CALLS = 40
# A ladder that has brought less than this in so many steps ends below the wanted recall.
_STEPS_WITHOUT_GAIN, _GAIN = 4, 5e-4

Search = Callable[[Float32Array, int], Int64Array]


def measure_retrieve(
    bundle: Bundle, queries: Float32Array, cache: Path, calls: int, skip: Sequence[str], progress: Progress
) -> list[dict[str, Any]]:
    """The rows of the report: all items eligible, one query at a time, one thread.

    Each peer searches with the quickest of its settings that finds, of the exact top 1000 of these queries, at least
    the share that the bundle's index finds. None of them was trained or calibrated on the queries; a peer is tuned on
    those that it is measured with, which if anything flatters it.

    Args:
        queries: float32 (q, dim).
        cache: keeps the peers' indexes.
    """
    vectors = np.ascontiguousarray(bundle.item_vectors)
    k = min(_K, len(vectors))
    progress(0, 1, "exact search")
    truth = Truth.of(vectors, queries, k)
    progress(1, 1, "exact search")
    index = FaissIndex.open(bundle.path / INDEX_FILE, bundle.manifest.index, bundle.item_table)
    everything = pack_mask(np.ones(len(vectors), np.bool_))

    def search_bundle(query: Float32Array, wanted: int) -> Int64Array:
        return index.search(query, wanted, everything)[0]

    searches: dict[str, Search] = {"engine": search_bundle}
    recalls = {"engine": _recall(search_bundle, vectors, truth)}
    recorded = bundle.manifest.index
    described: dict[str, tuple[str, Parameters]] = {
        "engine": (f"the bundle's index, FAISS {recorded['factory']}", {"nprobe": recorded["nprobe"]})
    }
    skipped = {}
    directory = cache / f"ann-{len(vectors)}-{bundle.version}"
    if reason := "left out by --skip" if "scann" in skip else missing("scann"):
        skipped["scann"] = reason
    else:
        # Here, and not above: the library need not be there.
        from engine_bench.peers.ann_scann import Scann

        peer = Scann()
        build_or_open(peer, vectors, directory, lambda done, total: progress(done, total, "build scann"))
        used, recalls["scann"] = _tune(peer, vectors, truth, recalls["engine"], progress)
        searches["scann"] = peer.search
        described["scann"] = (peer.title, peer.build_parameters | used)
    took = in_turns(
        {name: partial(_search_nth, search, queries, k) for name, search in searches.items()},
        calls,
        lambda done, total: progress(done, total, "retrieve"),
    )
    rows: list[dict[str, Any]] = []
    for name, (title, parameters) in described.items():
        row = {"stage": "retrieve", "name": name, "title": title, **percentiles(took[name])}
        equal = recalls[name] >= recalls["engine"]
        rows.append(row | {"recall_at_1000": round(recalls[name], 4), "equal_recall": equal, "parameters": parameters})
    return rows + [
        {"stage": "retrieve", "name": name, "title": name, "parameters": {}, "skipped": reason}
        for name, reason in skipped.items()
    ]


def _search_nth(search: Search, queries: Float32Array, k: int, call: int) -> Int64Array:
    return search(queries[call % len(queries)], k)


def _recall(search: Search, vectors: Float32Array, truth: Truth) -> float:
    found = np.full((len(truth.queries), truth.k), -1, np.int64)
    for place, query in enumerate(truth.queries):
        rows = search(query, truth.k)
        found[place, : len(rows)] = rows
    return float(recalls_of(found, vectors, truth).mean())


def _tune(
    peer: AnnPeer, vectors: Float32Array, truth: Truth, wanted: float, progress: Progress
) -> tuple[Parameters, float]:
    """Of each ladder the first step that reaches the wanted recall, and of these the quickest; the peer uses it then.

    Where none reaches it, what comes nearest.
    """
    reached: list[tuple[Parameters, float]] = []
    nearest: tuple[Parameters, float] = ({}, -1.0)
    ladders = peer.ladders(len(vectors), truth.k)
    for done, ladder in enumerate(ladders):
        progress(done, len(ladders), f"tune {peer.name}")
        climbed: list[float] = []
        for step in ladder:
            peer.use(step)
            recall = _recall(peer.search, vectors, truth)
            nearest = max(nearest, (step, recall), key=lambda found: found[1])
            if recall >= wanted:
                reached.append((step, recall))
                break
            if len(climbed) >= _STEPS_WITHOUT_GAIN and recall - climbed[-_STEPS_WITHOUT_GAIN] < _GAIN:
                break
            climbed.append(recall)
    progress(len(ladders), len(ladders), f"tune {peer.name}")
    best = min(reached, key=lambda found: _trial_ms(peer, found[0], truth)) if reached else nearest
    peer.use(best[0])
    return best


def _trial_ms(peer: AnnPeer, parameters: Parameters, truth: Truth) -> float:
    peer.use(parameters)
    queries = truth.queries
    took = in_turns({peer.name: lambda call: peer.search(queries[call % len(queries)], truth.k)}, _TRIAL_CALLS)
    return float(np.median(took[peer.name]))
