"""The item index on a GPU: an exact scan in float16, the bundle's own cells, or a CAGRA graph."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np

from engine.adapters.cuda.device import TURNS, require_memory
from engine.adapters.cuda.scan import CudaScanSearcher
from engine.adapters.faiss.build import recode
from engine.adapters.faiss.index import IndexParameters, read_index
from engine.adapters.faiss.visits import NprobeSchedule
from engine.config.serving import DeviceConfig
from engine.errors import BundleError, ConfigError, EngineError
from engine.kernels.membership import pack_mask
from engine.kernels.scan import scan_eligible
from engine.kernels.topk import top_k
from engine.retrieval.overfetch import Found, OverFetchingIndex, Searcher
from engine.retrieval.shards import ShardedSearcher
from engine.types import Float32Array, UInt8Array

# What a selection on the device can return; beyond, FAISS refuses.
_CLASSIC_MAX_K: Final = 2048
_CUVS_MAX_K: Final = 16_384
# Enough to return as many as cuVS does, where most of a request's items may not be shown.
_CLASSIC_SHARDS: Final = 8
_CLASSIC_MAX_NPROBE: Final = 2048
# A CAGRA search keeps its candidates in a buffer of a multiple of this.
_CAGRA_STEP: Final = 32
_CAGRA_SPARE: Final = 64
_PROBE_K: Final = 64
_RECALL_K, _RECALL_QUERIES, _LEAST_RECALL = 1000, 16, 0.95

ParametersOf = Callable[[int], Any]
"""From k to FAISS's search parameters, or None where there are none to give."""


class GpuSearcher:
    """A Searcher over one FAISS GPU index. Searches take turns: FAISS's resources are not for two threads at once."""

    filter_below = 0.0  # FAISS takes one selector a call

    def __init__(
        self, index: Any, resources: Any, max_k: int, parameters_of: ParametersOf, half_queries: bool = False
    ) -> None:
        """Serve a filled GPU index whose ids are item rows.

        Args:
            resources: what the index was made with; kept for as long as the index is.
            max_k: the device's limit.
            parameters_of: makes the parameters of one search.
            half_queries: the index takes float16 queries.
        """
        self._index = index
        self._resources = resources
        self._max_k = max_k
        self._parameters_of = parameters_of
        self._numeric = {"numeric_type": faiss.Float16} if half_queries else {}
        self.filters = self._proves_to_filter()

    @property
    def dim(self) -> int:
        return int(self._index.d)

    @property
    def item_count(self) -> int:
        return int(self._index.ntotal)

    @property
    def max_k(self) -> int:
        return self._max_k

    def search(self, queries: Float32Array, k: int) -> Found:
        """See Searcher. Raises EngineError where the device fails."""
        return self._search(np.ascontiguousarray(queries), k, self._parameters_of(k))

    def search_eligible(self, queries: Float32Array, k: int, eligible: Sequence[UInt8Array]) -> Found:
        """See Searcher. Cost: a search for each query, and a copy of its bitmap to the device before it."""
        found = [self._search_one(query, k, bitmap) for query, bitmap in zip(queries, eligible, strict=True)]
        return np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found])

    def _search_one(self, query: Float32Array, k: int, eligible: UInt8Array) -> Found:
        parameters = self._parameters_of(k)
        if parameters is None:
            parameters = faiss.SearchParameters()
        parameters.sel = faiss.IDSelectorBitmap(len(eligible), faiss.swig_ptr(eligible))
        return self._search(np.ascontiguousarray(query)[None], k, parameters)

    def _search(self, queries: Float32Array, k: int, parameters: Any) -> Found:
        try:
            with TURNS:
                scores, rows = self._index.search(queries, k, params=parameters, **self._numeric)
        except RuntimeError as error:
            raise EngineError(f"the GPU search failed: {_reason(error)}") from None
        return rows, scores

    def _proves_to_filter(self) -> bool:
        """Whether the index honours a selector, by trying: some kinds refuse one, others ignore it silently."""
        if self.item_count < 4 * _PROBE_K:
            return False
        mask = np.arange(self.item_count) % 2 == 1
        queries = np.ones((1, self.dim), np.float32)
        try:
            rows, _ = self.search_eligible(queries, _PROBE_K, [pack_mask(mask)])
        except (EngineError, TypeError, ValueError):
            return False
        return bool((rows % 2 == 1).all() and (rows >= 0).all())


def open_gpu_index(
    path: Path, parameters: IndexParameters, item_vectors: Float32Array, config: DeviceConfig
) -> OverFetchingIndex:
    """The item index of a bundle on the device.

    Args:
        path: index.faiss, for index = "ivf"; the others are made from the vectors.
        parameters: recorded beside it.
        item_vectors: float32 (item_count, at least dim), C-contiguous; its first `dim` columns are the vectors.

    Raises:
        ConfigError: the index does not fit into the device's free memory, or a graph finds too little. BundleError: the
            bundle has none of the kind.

    Cost: a copy of all vectors to the device; seconds at ten million items, minutes for a CAGRA graph.
    """
    vectors = item_vectors[:, : parameters.dim]
    require_memory(
        f"the item index (device.index = {config.index!r})",
        index_bytes(len(vectors), parameters.dim, config),
        config.cuda_device,
    )
    try:
        # Without a turn: it can take minutes, and another bundle serves meanwhile.
        searcher = _searcher(path, parameters, vectors, config)
    except RuntimeError as error:
        raise ConfigError(
            f"the item index cannot be put on CUDA device {config.cuda_device}: {_reason(error)}"
        ) from None
    if config.index == "cagra":
        require_recall(searcher, vectors)
    return OverFetchingIndex(searcher, item_vectors)


def require_recall(searcher: Searcher, vectors: Float32Array) -> None:
    """Raise ConfigError where a graph finds less than 95% of the best that a scan finds, for some of the items.

    A graph is searched from random starts, and never enters a cluster that none of them leads to: on clustered vectors
    half of the best can be missing, and nothing says so. Cost: 16 exact scans on the processor.
    """
    k = max(1, min(_RECALL_K, searcher.max_k, len(vectors) // 4))
    queries = np.ascontiguousarray(vectors[:: -(-len(vectors) // _RECALL_QUERIES)])
    everything = np.full((len(vectors) + 7) // 8, 255, np.uint8)
    rows, _ = searcher.search(queries, k)
    shares = []
    for query, found in zip(queries, rows, strict=True):
        all_rows, scores = scan_eligible(vectors, query, everything)
        shares.append(len(np.intersect1d(all_rows[top_k(scores, k)], found)) / k)
    recall = float(np.mean(shares))
    if recall < _LEAST_RECALL:
        raise ConfigError(
            f"the graph (device.index = 'cagra') finds {recall:.0%} of the best {k} items of this catalogue, and "
            f'{_LEAST_RECALL:.0%} are wanted: set device.index = "exact"'
        )


def index_bytes(item_count: int, dim: int, config: DeviceConfig) -> int:
    """About what the index takes on the device, its temporary memory included."""
    each = {"exact": 2 * dim + 4, "ivf": 2 * dim + 8, "cagra": 2 * dim + 4 * (64 + 128)}[config.index]
    return item_count * each + (config.search_temporary_mb << 20)


def open_searcher(vectors: Float32Array, config: DeviceConfig) -> Searcher:
    """Search on the device over float32 (n, dim) alone, without a bundle: exact, or a CAGRA graph."""
    if config.index == "exact" and config.kernels == "fused":
        return CudaScanSearcher(vectors, config.cuda_device)
    resources = _resources(config)
    if config.index == "cagra":
        return _graph(vectors, resources, config)
    return _exact(vectors, resources, config)


def _searcher(path: Path, parameters: IndexParameters, vectors: Float32Array, config: DeviceConfig) -> Searcher:
    if config.index == "ivf":
        return _cells(path, parameters, vectors, _resources(config), config)
    return open_searcher(vectors, config)


def _resources(config: DeviceConfig) -> Any:
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(config.search_temporary_mb << 20)
    return resources


def _exact(vectors: Float32Array, resources: Any, config: DeviceConfig) -> Searcher:
    """An exact scan in float16 with cuVS's kernels, or with FAISS's own over shards."""
    use_cuvs = config.kernels == "cuvs"
    flat = faiss.GpuIndexFlatConfig()
    flat.device = config.cuda_device
    flat.useFloat16 = True
    flat.use_cuvs = use_cuvs
    count = 1 if use_cuvs else _CLASSIC_SHARDS
    parts = []
    for part in np.array_split(np.arange(len(vectors)), min(count, len(vectors))):
        index = faiss.GpuIndexFlat(resources, vectors.shape[1], faiss.METRIC_INNER_PRODUCT, flat)
        index.add(np.ascontiguousarray(vectors[part[0] : part[-1] + 1]))
        max_k = min(_CUVS_MAX_K if use_cuvs else _CLASSIC_MAX_K, len(part))
        parts.append(GpuSearcher(index, resources, max_k, lambda _k: None))
    return parts[0] if len(parts) == 1 else ShardedSearcher(parts)


def _cells(
    path: Path, parameters: IndexParameters, vectors: Float32Array, resources: Any, config: DeviceConfig
) -> GpuSearcher:
    stored = read_index(path, parameters.dim, parameters.item_count)
    if not hasattr(stored, "nlist"):
        raise BundleError(f'{path}: device.index = "ivf" needs an index of cells, and this is {parameters.factory}')
    # With codes of 8 bits a search for more than 512 asks for more shared memory than FAISS 1.15 gives its kernel, and
    # ends the process.
    if stored.sq.qtype != faiss.ScalarQuantizer.QT_fp16:
        stored = recode(stored, vectors, "SQfp16")
    options = faiss.GpuClonerOptions()
    options.useFloat16CoarseQuantizer = True
    options.use_cuvs = False  # cells of scalar codes are FAISS's own
    index = faiss.index_cpu_to_gpu(resources, config.cuda_device, stored, options)
    schedule = NprobeSchedule(parameters.nprobe, parameters.filtered_nprobe, int(stored.nlist))

    def parameters_of(k: int) -> Any:
        # More results than calibrated spread over as many cells as those of a smaller share of eligible items.
        made = faiss.SearchParametersIVF()
        made.nprobe = min(schedule.at(min(parameters.recall_k / k, 1.0)), _CLASSIC_MAX_NPROBE)
        return made

    return GpuSearcher(index, resources, min(_CLASSIC_MAX_K, parameters.item_count), parameters_of)


def _graph(vectors: Float32Array, resources: Any, config: DeviceConfig) -> GpuSearcher:
    library: Any = faiss  # the processor's build lacks these names
    settings = library.GpuIndexCagraConfig()
    settings.device = config.cuda_device
    settings.use_cuvs = True
    index = library.GpuIndexCagra(resources, vectors.shape[1], faiss.METRIC_INNER_PRODUCT, settings)
    index.train(np.ascontiguousarray(vectors, np.float16), numeric_type=library.Float16)

    def parameters_of(k: int) -> Any:
        made = library.SearchParametersCagra()
        made.itopk_size = -(-(k + _CAGRA_SPARE) // _CAGRA_STEP) * _CAGRA_STEP
        return made

    return GpuSearcher(index, resources, min(_CLASSIC_MAX_K, len(vectors)), parameters_of, half_queries=True)


def _reason(error: RuntimeError) -> str:
    """What comes last: FAISS puts its own source location first."""
    return str(error).rsplit("Error: ", 1)[-1].rsplit("failed: ", 1)[-1].strip()
