"""Where search and ranking run, as the settings say: on the processor, on a CUDA device, or in another process."""

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from engine.adapters.onnx.ranker import OnnxRanker
from engine.batching.batched import BatchedIndex, BatchedRanker
from engine.batching.micro_batcher import MicroBatcher
from engine.bundle.bundle import INDEX_FILE, RANKER_FILE, RANKER_HALF_FILE, RANKER_INT8_FILE, Bundle
from engine.catalog.live import LiveCatalogue
from engine.config.serving import EngineConfig
from engine.device.client import DeviceClient
from engine.device.remote import RemoteIndex, RemoteRanker
from engine.device.slot import SlotShape
from engine.errors import BundleError
from engine.features.schema import CODE_FEATURES
from engine.stages.rank import Ranker
from engine.stages.retrieve import ItemIndex

log = logging.getLogger(__name__)

# Nothing of the GPU's libraries is imported before the settings ask for it; nor FAISS where another process searches:
# its build for GPUs brings all of them along.

# Calls that no request makes: a bundle's dry run.
_SPARE_SLOTS: Final = 2


def open_batcher(config: EngineConfig) -> AbstractContextManager[MicroBatcher | None]:
    """The one thread of this process that makes native calls for several requests at once; None where none is to.

    Raises ConfigError where the settings ask for a device that is not there.
    """
    if config.device.device_socket is not None:
        return nullcontext()
    if config.device.uses_cuda:
        from engine.adapters.cuda.device import require_device

        require_device(config.device)
        if config.server.workers > 1:
            log.warning(
                "each of %d workers has a copy of its own on the CUDA device: device.process = true gives them one",
                config.server.workers,
            )
    if not config.micro_batch:
        return nullcontext()
    # A request has one place at most: this queue is never full before admission refuses.
    return MicroBatcher(config.micro_batch, config.server.max_concurrent_requests)


def open_stages(
    bundle: Bundle, catalogue: LiveCatalogue, config: EngineConfig, batcher: MicroBatcher | None
) -> tuple[ItemIndex, Ranker]:
    """Index and ranker of a bundle, wherever they run.

    Raises as open_index does, and DependencyUnavailable where they are in another process that is not there.
    """
    path = config.device.device_socket
    if path is None:
        return open_index(bundle, config, batcher), open_ranker(bundle, catalogue, config, batcher)
    slots = config.compute_threads(os.cpu_count() or 1) + _SPARE_SLOTS
    client = DeviceClient(path, bundle.path, slot_shape(bundle, catalogue), slots)
    return RemoteIndex(client, bundle.schema.embedding_dim, bundle.item_table), RemoteRanker(client, catalogue)


def slot_shape(bundle: Bundle, catalogue: LiveCatalogue) -> SlotShape:
    """The array sizes that a request to this bundle needs."""
    schema = bundle.schema
    return SlotShape(
        dim=schema.embedding_dim,
        collaborative_dim=schema.collaborative_dim,
        dense_dim=schema.dense_dim,
        code_count=len(CODE_FEATURES),
        item_count=len(bundle.items),
        row_count=catalogue.row_count,
    )


def open_index(bundle: Bundle, config: EngineConfig, batcher: MicroBatcher | None) -> ItemIndex:
    """The bundle's items, searchable. Raises BundleError, or ConfigError where they do not fit on the device."""
    from engine.adapters.faiss.index import FaissIndex, IndexParameters

    path = bundle.path / INDEX_FILE
    if config.device.retrieval == "cpu":
        # FAISS takes one filter for all queries of a call, and every request has one of its own: nothing to share.
        return FaissIndex.open(path, bundle.manifest.index, bundle.item_table)
    from engine.adapters.faiss.gpu_index import open_gpu_index

    index = open_gpu_index(
        path, IndexParameters.model_validate(bundle.manifest.index), bundle.item_table, config.device
    )
    return index if batcher is None else BatchedIndex(index, batcher)


def open_ranker(bundle: Bundle, catalogue: LiveCatalogue, config: EngineConfig, batcher: MicroBatcher | None) -> Ranker:
    """The bundle's ranker over the catalogue's tables. Raises as open_index does."""
    tables = (catalogue.item_table, catalogue.item_dynamic)
    if config.device.ranking == "cpu":
        ranker = OnnxRanker(_processor_graph_file(bundle, config), bundle.schema, *tables)
        return ranker if batcher is None else BatchedRanker(ranker, batcher)
    from engine.adapters.cuda.device import require_memory
    from engine.adapters.onnx.gpu_ranker import DeviceRanking, OnnxGpuRanker

    needed = sum(table.nbytes for table in tables) + (config.device.ranking_memory_mb << 20)
    require_memory("ranking", needed, config.device.cuda_device)
    settings = DeviceRanking(
        device="cuda",
        device_id=config.device.cuda_device,
        provider=config.device.provider,
        half=config.device.precision == "float16",
        memory_bytes=config.device.ranking_memory_mb << 20,
        candidate_count=config.retrieval.candidate_count,
        batch_sizes=batch_sizes(config.micro_batch or 1),
        tensorrt_cache=config.device.tensorrt_cache,
    )
    on_device = OnnxGpuRanker(_graph_file(bundle, config), bundle.schema, *tables, settings)
    catalogue.row_listeners.append(on_device.rows_written)
    return on_device if batcher is None else BatchedRanker(on_device, batcher)


def batch_sizes(most: int) -> tuple[int, ...]:
    """The shapes that batches of up to `most` requests are padded to: powers of four, and `most` itself."""
    sizes = [1]
    while sizes[-1] * 4 < most:
        sizes.append(sizes[-1] * 4)
    return tuple(sizes) if sizes[-1] == most else (*sizes, most)


def _processor_graph_file(bundle: Bundle, config: EngineConfig) -> Path:
    if config.device.cpu_precision == "float32":
        return bundle.path / RANKER_FILE
    if RANKER_INT8_FILE not in bundle.manifest.files:
        raise BundleError(
            f'{bundle.path}: no {RANKER_INT8_FILE} for device.cpu_precision = "int8": it orders this bundle\'s items '
            "otherwise than float32 does (int8_top_50_overlap in metrics.json), or an older version trained it"
        )
    return bundle.path / RANKER_INT8_FILE


def _graph_file(bundle: Bundle, config: EngineConfig) -> Path:
    if config.device.precision == "float32":
        return bundle.path / RANKER_FILE
    if RANKER_HALF_FILE not in bundle.manifest.files:
        raise BundleError(
            f'{bundle.path}: no {RANKER_HALF_FILE} for device.ranking = "cuda": train a bundle with this version, '
            'or set device.precision = "float32"'
        )
    return bundle.path / RANKER_HALF_FILE
