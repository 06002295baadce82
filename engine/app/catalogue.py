"""The catalogue that lives beside a bundle: followed from the overlay, changed by the API."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing

from engine.adapters.redis.catalog import RedisCatalogSource, RedisCatalogWriter
from engine.app.dependencies import redis_url
from engine.app.last_good import LastGood
from engine.catalog.follow import CatalogueFollower
from engine.catalog.live import LiveCatalogue
from engine.config.serving import EngineConfig
from engine.errors import DependencyUnavailable
from engine.request.model import Serving
from engine.request.pipeline import Pipeline
from engine.types import Int64Array

log = logging.getLogger(__name__)


@asynccontextmanager
async def living_catalogue(
    config: EngineConfig, serving: Serving, last_good: LastGood
) -> AsyncIterator[CatalogueFollower]:
    """The overlay, shown in full in what serves by the time that this is entered, and followed from then on.

    Where it cannot be read and a worker has served before, it is shown once it can be.
    """

    def catalogues() -> list[LiveCatalogue]:
        return [model.catalogue for model in serving.models]

    def catch_up() -> None:
        for catalogue in catalogues():
            follower.catch_up(catalogue)

    with ExitStack() as resources:
        url = resources.enter_context(redis_url(config))
        source = resources.enter_context(closing(RedisCatalogSource(url, config.redis)))
        follower = CatalogueFollower(source)
        try:
            await asyncio.to_thread(follower.load, {model.bundle.manifest.generation for model in serving.models})
            await asyncio.to_thread(catch_up)
        except DependencyUnavailable as error:
            if not last_good.has_served:
                raise
            log.warning("%s; starting with the catalogue of the bundle", error)
        stop = threading.Event()
        thread = threading.Thread(
            target=follower.run,
            args=(catalogues, stop),
            name="engine-catalogue",
            daemon=True,
        )
        thread.start()
        try:
            yield follower
        finally:
            stop.set()
            await asyncio.to_thread(thread.join)


@asynccontextmanager
async def open_catalogue_writer(config: EngineConfig) -> AsyncIterator[RedisCatalogWriter]:
    """Where the API's changes of the catalogue go."""
    with redis_url(config) as url:
        writer = RedisCatalogWriter(url, config.redis)
        try:
            yield writer
        finally:
            await writer.close()


class ServingCatalogue:
    """Capacity of the catalogue that serves now. Implements engine.rpc.catalog_servicer.CatalogueCapacity."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def unknown(self, keys: Int64Array) -> list[bool]:
        return self._pipeline.model.catalogue.unknown(keys)

    @property
    def spare_capacity(self) -> int:
        return self._pipeline.model.catalogue.spare_capacity
