"""A running engine, from settings. Only the modules of engine.app choose which adapter implements which Protocol."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from engine.adapters.kafka.bus import KafkaEventLog, KafkaProducer
from engine.adapters.kafka.exposures import KafkaExposureLog
from engine.adapters.redis.connect import warn_of_eviction
from engine.adapters.redis.store import RedisFeatureStore
from engine.adapters.redis.trending import RedisTrending
from engine.app.backends import open_batcher
from engine.app.catalogue import ServingCatalogue, living_catalogue, open_catalogue_writer
from engine.app.dependencies import kafka_brokers, log_name, redis_url
from engine.app.last_good import LastGood, first_model
from engine.app.model import load_model
from engine.app.swap import VariantBundles, follow_current
from engine.app.trending import Trending, follow_trending
from engine.batching.micro_batcher import MicroBatcher
from engine.bundle.store import BundleStore
from engine.catalog.follow import follow_rules
from engine.config.serving import EngineConfig
from engine.errors import DependencyUnavailable
from engine.experiments.exposure import LoggedRecommender
from engine.experiments.settings import named_bundles
from engine.request.model import ServingModel
from engine.request.pipeline import Pipeline
from engine.rpc.experiment_servicer import Reporter
from engine.rpc.metrics import MeasuredRecommender, ServerMetrics, follow_gauges
from engine.rpc.overload import LimitedRecommender
from engine.rpc.server import Server, create_server
from engine.rpc.servicer import Recommender
from engine.rules.follow import RulesFile
from engine.rules.load import parse_rules
from engine.runtime.helper_process import HelperProcess
from engine.runtime.stalls.turns import started_pool
from engine.stages.features import FetchFeatures
from engine.stream.topics import EVENTS
from engine.types import Priority

log = logging.getLogger(__name__)


@asynccontextmanager
async def running_server(
    config: EngineConfig,
    *,
    shares_port: bool = False,
    metrics: ServerMetrics | None = None,
    freeze: Callable[[], None] = lambda: None,
    last_good: LastGood | None = None,
) -> AsyncIterator[Server]:
    """A warm, SERVING server that follows new bundles and live counts; drained and released at the end.

    Args:
        shares_port: it is one of several processes on the port; see engine.app.supervisor.
        metrics: what counts its calls and answers; without, nothing does.
        freeze: called once all that lives long is there, before health says SERVING, and with each further bundle
            before it serves; engine.runtime.stalls.collector.freeze_long_lived where the process is the server's alone.
        last_good: what workers of the same supervisor served by, if any.

    It starts without Kafka, too: recommendations need none, and recording events says UNAVAILABLE until there is one.
    """
    last_good = LastGood() if last_good is None else last_good
    async with AsyncExitStack() as resources:
        batcher = resources.enter_context(open_batcher(config))
        pipeline = await resources.enter_async_context(open_pipeline(config, batcher, last_good))
        brokers = resources.enter_context(kafka_brokers(config))
        event_log = await resources.enter_async_context(open_event_log(config, brokers))
        trending = resources.enter_context(live_counts(config, brokers)) if config.trending.poll_s else None
        catalogue = await resources.enter_async_context(living_catalogue(config, pipeline, last_good))
        changes = await resources.enter_async_context(open_catalogue_writer(config))

        def load(path: Path) -> ServingModel:
            own = pipeline.model.catalogue
            model = load_model(path, config, own.rules.rules, own.variant_rules, batcher)
            # Before it serves: a new bundle must take back neither what has changed nor what is live.
            catalogue.catch_up(model.catalogue)
            if trending is not None:
                trending.refresh(model)
            freeze()
            return model

        def load_with_care(path: Path) -> ServingModel:
            with last_good.opening(path, config):
                return load(path)

        store = BundleStore(config.bundle.directory)
        variants = VariantBundles(store, pipeline, load, named_bundles(config, time.time_ns() // 1_000_000))
        await asyncio.to_thread(variants.look)
        exposures = await resources.enter_async_context(open_exposure_log(config, brokers))
        recommender: Recommender = pipeline
        if exposures is not None:
            recommender = LoggedRecommender(
                recommender, exposures, lambda query: pipeline.experiments.assign(query).experiments
            )
        if config.server.adaptive_concurrency:
            recommender = limited(recommender, config)
        if metrics is not None:
            recommender = MeasuredRecommender(recommender, metrics)
        server = create_server(
            recommender,
            config,
            event_log=event_log,
            catalogue=(changes, ServingCatalogue(pipeline)),
            metrics=metrics,
            reporter=resources.enter_context(report_service(config, pipeline)) if config.reports.archive else None,
            shares_port=shares_port,
        )
        await server.start()
        freeze()
        server.set_serving()
        last_good.serving()

        followers = [
            asyncio.create_task(follow_current(store, pipeline, load_with_care, config.bundle.poll_s, last_good)),
            asyncio.create_task(variants.follow(config.bundle.poll_s)),
        ]
        if config.rules.file is not None:
            helper = resources.enter_context(closing(HelperProcess()))
            parse = partial(helper.call, parse_rules)
            file = RulesFile(config.rules.file, config.surfaces, parse, last_good.rules(config.rules.file))

            def looked() -> None:
                fits = file.rules is pipeline.model.catalogue.rules.rules
                last_good.note("rules", outdated=not (fits and file.in_force))
                if fits:
                    last_good.in_force(file.path, file.content)

            followers.append(asyncio.create_task(follow_rules(file, catalogue, pipeline, config.rules.poll_s, looked)))
        if trending is not None:
            followers.append(asyncio.create_task(follow_trending(trending, pipeline, config.trending.poll_s)))
        if metrics is not None:
            gauges = follow_gauges(
                metrics,
                lambda: server.in_flight,
                lambda: pipeline.version,
                lambda: None if exposures is None else exposures.counts,
                lambda: last_good.in_use,
            )
            followers.append(asyncio.create_task(gauges))
        try:
            yield server
        finally:
            for follower in followers:
                follower.cancel()
                with suppress(asyncio.CancelledError):
                    await follower
            await server.stop(config.server.drain_s)


def limited(recommender: Recommender, config: EngineConfig) -> Recommender:
    """The recommender, with as many requests at once as it answers in time."""
    threads = config.compute_threads(os.cpu_count() or 1)
    priorities = {name: Priority[surface.priority.upper()] for name, surface in config.surfaces.items()}
    server = config.server
    allowed_s = (server.request_timeout_ms - min(server.reserve_ms, server.request_timeout_ms / 2)) / 1000
    return LimitedRecommender(recommender, threads, server.max_concurrent_requests, allowed_s, priorities)


@asynccontextmanager
async def open_pipeline(
    config: EngineConfig, batcher: MicroBatcher | None = None, last_good: LastGood | None = None
) -> AsyncIterator[Pipeline]:
    """A pipeline over the current bundle, warm and ready; everything that it holds is released at the end.

    Args:
        batcher: of open_batcher, for who will load further bundles; without, the pipeline has one of its own.
        last_good: what workers of the same supervisor served by. Where there is anything, the pipeline starts by it,
            and without Redis, where it must.

    Raises:
        BundleError: no bundle, or one that does not verify. DependencyUnavailable: Redis is out of reach.
        RulesError: a rules file that cannot work, with line and reason.
    """
    last_good = LastGood() if last_good is None else last_good
    with ExitStack() as resources:
        batcher = batcher or resources.enter_context(open_batcher(config))
        url = resources.enter_context(redis_url(config))
        store = RedisFeatureStore(url, config.redis)
        try:
            try:
                await store.ping(config.redis.connect_timeout_s)
                await asyncio.to_thread(warn_of_eviction, url, config.redis)
            except DependencyUnavailable as error:
                if not last_good.has_served:
                    raise
                log.warning("%s; starting without stored features", error)
            model = first_model(config, last_good, batcher)
            executor = resources.enter_context(
                started_pool(config.compute_threads(os.cpu_count() or 1), "engine-compute")
            )
            features = FetchFeatures(store, config.redis.timeout_ms / 1000, config.redis.stale_cache_mb << 20)
            pipeline = Pipeline(model, features, config, executor)
            del model  # this frame lasts as long as the server, and the first bundle is to go when another one serves
            yield pipeline
        finally:
            await store.close()


@asynccontextmanager
async def open_event_log(config: EngineConfig, brokers: str) -> AsyncIterator[KafkaEventLog]:
    """The log that events are recorded in, connected where Kafka can be reached; what it holds is sent at the end."""
    producer = KafkaProducer(brokers, config.kafka)
    try:
        try:
            await producer.connect()
        except DependencyUnavailable as error:
            # A topic may be missing that only exposures go to.
            what = "as far as it concerns them, recording events will say UNAVAILABLE and exposures are dropped"
            log.warning("%s; %s meanwhile", error, what)
        yield KafkaEventLog(producer)
    finally:
        await asyncio.to_thread(producer.close)


@asynccontextmanager
async def open_exposure_log(config: EngineConfig, brokers: str) -> AsyncIterator[KafkaExposureLog | None]:
    """Where answers are logged, if anywhere. Kafka need not be there."""
    if not config.exposures.enabled:
        yield None
        return
    exposures = KafkaExposureLog(brokers, config.kafka, config.exposures)
    try:
        yield exposures
    finally:
        await asyncio.to_thread(exposures.close)


@contextmanager
def live_counts(config: EngineConfig, brokers: str) -> Iterator[Trending]:
    """What brings the live counts of the stream processor into models."""
    with redis_url(config) as url:
        source = RedisTrending(url, config.redis, log_name(config, brokers), EVENTS.partitions)
        with closing(source):
            yield Trending(source, config.trending.prior_events)


@contextmanager
def report_service(config: EngineConfig, pipeline: Pipeline) -> Iterator[Reporter]:
    """What makes reports from the archive that the settings name, with the categories of the bundle that serves."""
    # Here, because a server without reports needs none of the `analysis` extra.
    from engine.experiments.analysis.files import Archive
    from engine.experiments.analysis.report_query import as_declared
    from engine.experiments.analysis.report_service import ReportService

    settings = config.reports
    assert settings.archive is not None
    reports = ReportService(
        Archive.within(settings.archive, settings.events),
        lambda: pipeline.model.bundle.path,
        lambda query: as_declared(query, config),
        settings.cache_s,
        settings.max_concurrent,
        settings.max_waiting,
        settings.memory_mb,
    )
    with closing(reports):
        yield reports
