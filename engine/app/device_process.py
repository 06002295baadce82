"""From settings to the process that searches and ranks for several front ends."""

import asyncio
import logging
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from engine.app.backends import slot_shape
from engine.app.catalogue import living_catalogue
from engine.app.dependencies import kafka_brokers
from engine.app.last_good import LastGood
from engine.app.model import load_model
from engine.app.serve import live_counts
from engine.app.trending import Trending, follow_trending
from engine.batching.batched import BatchRanker
from engine.bundle.store import BundleStore
from engine.catalog.follow import CatalogueFollower
from engine.config.serving import EngineConfig
from engine.device.model import DeviceModel, LeasedModels, RankHandler, SearchHandler, one_by_one
from engine.device.server import DeviceServer
from engine.device.slot import RANK, SEARCH
from engine.errors import AnotherTries, BundleError, described
from engine.request.model import ServingModel
from engine.retrieval.live_index import LiveIndex
from engine.retrieval.overfetch import OverFetchingIndex

log = logging.getLogger(__name__)


@asynccontextmanager
async def running_device(
    config: EngineConfig, socket: Path, freeze: Callable[[], None] = lambda: None, last_good: LastGood | None = None
) -> AsyncIterator[DeviceServer]:
    """A device process's server, with the current bundle loaded; it ends with the context.

    It follows catalogue and live counts for itself, as every process does, and loads what front ends ask for.
    freeze, last_good: as for engine.app.serve.running_server.

    Raises BundleError, ConfigError or DependencyUnavailable where it cannot begin.
    """
    last_good = LastGood() if last_good is None else last_good
    if config.device.uses_cuda:
        from engine.adapters.cuda.device import require_device

        require_device(config.device)
    _allow_many_files()
    catalogue: CatalogueFollower | None = None
    trending: Trending | None = None

    def load(path: Path) -> DeviceModel[ServingModel]:
        model = load_model(path, config)
        if catalogue is not None:
            catalogue.catch_up(model.catalogue)
        if trending is not None:
            trending.refresh(model)
        freeze()
        return _on_device(model)

    held = LeasedModels(load)
    async with AsyncExitStack() as resources:
        if config.trending.poll_s:
            trending = resources.enter_context(live_counts(config, resources.enter_context(kafka_brokers(config))))
        await asyncio.to_thread(_prepare_first, held, config, last_good)
        serving = _Serving(held)
        catalogue = await resources.enter_async_context(living_catalogue(config, serving, last_good))
        freeze()
        with DeviceServer(socket, held, max(config.micro_batch, 1)) as server:
            following = asyncio.create_task(_follow(trending, serving, config.trending.poll_s))
            try:
                yield server
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following


def _prepare_first(held: LeasedModels[ServingModel], config: EngineConfig, last_good: LastGood) -> None:
    """The current bundle; where it does not verify, the one that workers served by last: it is what they will ask for.

    Raises as LeasedModels.prepare does.
    """
    try:
        path = BundleStore(config.bundle.directory).current().resolve()
        with last_good.opening(path):
            held.prepare(path)
    except (BundleError, AnotherTries) as error:
        if not last_good.has_served:
            raise
        log.error("%s; starting by the bundle that was last served", described(error))
        held.prepare(last_good.bundle())


def _allow_many_files() -> None:
    """Two for each slot, and twice that during a swap: more than the 1,024 that are usual."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Serving:
    """What the followers write to. Implements engine.request.model.Serving."""

    def __init__(self, held: LeasedModels[ServingModel]) -> None:
        self._held = held

    @property
    def models(self) -> tuple[ServingModel, ...]:
        return tuple(model.serving for model in self._held.models)


async def _follow(trending: Trending | None, serving: _Serving, poll_s: float) -> None:
    if trending is not None:
        await follow_trending(trending, serving, poll_s)


def _on_device(model: ServingModel) -> DeviceModel[ServingModel]:
    # Without a batcher: requests wait for the server's one thread, and it is the one that makes all calls.
    assert isinstance(model.index, LiveIndex)
    index, ranker = model.index.main, model.ranker
    assert isinstance(ranker, BatchRanker)
    search_batch = index.search_batch if isinstance(index, OverFetchingIndex) else one_by_one(index)
    return DeviceModel(
        slot_shape(model.bundle, model.catalogue),
        {
            SEARCH: SearchHandler(search_batch),
            RANK: RankHandler(ranker, model.catalogue, model.catalogue.new_items.first_row),
        },
        model,
    )
