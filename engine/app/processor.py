"""Running stream processors, from settings. Chooses which adapter implements which Protocol of engine.stream."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import start_http_server

from engine.adapters.kafka.source import KafkaDeadLetters, KafkaSource
from engine.adapters.redis.connect import warn_of_eviction
from engine.adapters.redis.state import RedisLiveStore, RedisNearlineStore
from engine.app.dependencies import kafka_brokers, log_name, redis_url
from engine.app.model import load_embedders
from engine.bundle.bundle import open_bundle
from engine.bundle.manifest import read_manifest
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.contract.events import Logged, decode
from engine.contract.exposures import decode_exposure
from engine.errors import BundleError, LogMismatch
from engine.logs import Outage
from engine.runtime.stalls.metrics import StallMetrics
from engine.runtime.stalls.watch import timing_collections
from engine.stream.archive import EVENTS_LAYOUT, EXPOSURES_DIRECTORY, ArchiveSink
from engine.stream.events import read_events
from engine.stream.exposures import EXPOSURES_LAYOUT
from engine.stream.live import LiveSink
from engine.stream.metrics import ProcessorMetrics
from engine.stream.nearline import Refresher, UserModel
from engine.stream.processor import Processor, reading
from engine.stream.protocols import DeadLetters, LogRecord
from engine.stream.sink_shards import SinkShards
from engine.stream.state import Limits
from engine.stream.topics import EVENTS, EXPOSURES, Topic
from engine_client.v1 import exposure_pb2

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Longer than the customary interval between two scrapes.
_SCRAPE_S = 60.0


def process(config: EngineConfig, stop: threading.Event, freeze: Callable[[], None] = lambda: None) -> None:
    """Keep Redis, and the archive where one is wanted, true to the event log until `stop` is set.

    Args:
        freeze: called once all that lives long is there; for a process of its own, that of runtime.stalls.collector.

    Neither Redis nor Kafka need be there: the loops wait for them. A loop that breaks stops all.

    Raises:
        LogMismatch: the log is not the one that the stored positions are of. The reason is in the log, and the metric
            has been there for long enough to be scraped.
    """
    settings = config.processor
    with ExitStack() as resources:
        # Told apart from `stop`, so that whoever asks for an end while the loops end by themselves is heard.
        ending = resources.enter_context(_set_with(stop))
        brokers = resources.enter_context(kafka_brokers(config))
        url = resources.enter_context(redis_url(config))
        warn_of_eviction(url, config.redis)
        name = log_name(config, brokers)
        dead_letters = resources.enter_context(closing(KafkaDeadLetters(brokers, config.kafka)))
        refresher = None
        if settings.fresh_users_per_s:
            nearline = resources.enter_context(closing(RedisNearlineStore(url, config.redis, settings.fresh_ttl_s)))
            refresher = Refresher(
                nearline,
                current_user_model(config),
                settings.fresh_users_per_s,
                settings.fresh_batch,
                settings.fresh_pending,
                ending,
            )
        touched = [refresher.touch] if refresher else []
        limits = limits_of(config)
        sinks = []
        for _ in range(settings.lanes):
            store = RedisLiveStore(url, config.redis, settings, name, current_generation(config))
            resources.enter_context(closing(store))
            sinks.append(LiveSink(store, name, limits, settings.popular_items, *touched))
        shards = resources.enter_context(closing(SinkShards(sinks)))
        outage = Outage(log)
        processors: list[Processor[Any]] = [
            Processor(
                KafkaSource(brokers, config.kafka, settings.group, settings.batch_events, settings.fetch_mb),
                read_events,
                shards,
                ProcessorMetrics("live"),
                ending,
                dead_letters,
                settings.retry_max_s,
                settings.accept_new_log,
                outage,
            )
        ]
        if settings.archive_directory is not None:
            processors.append(events_archive(config, brokers, name, settings.archive_directory, ending, outage))
            if config.exposures.enabled:
                directory = settings.exposures_directory or settings.archive_directory.with_name(EXPOSURES_DIRECTORY)
                poison = resources.enter_context(closing(KafkaDeadLetters(brokers, config.kafka, EXPOSURES)))
                processors.append(exposures_archive(config, brokers, name, directory, poison, ending, outage))
        if settings.metrics_port is not None:
            resources.enter_context(timing_collections(StallMetrics()))
            server, _ = start_http_server(settings.metrics_port)
            resources.callback(server.server_close)
            resources.callback(server.shutdown)
        freeze()
        loops = [processor.run for processor in processors]
        try:
            run_until_stopped(loops + ([refresher.run] if refresher else []), ending)
        except LogMismatch as error:
            log.error("%s", error)
            if settings.metrics_port is not None:
                stop.wait(_SCRAPE_S)
            raise


def limits_of(config: EngineConfig) -> Limits:
    """What is kept of a user: what some surface's policy may ask for."""
    return Limits(
        config.processor.session_events,
        config.redis.seen_limit,
        config.processor.event_ids,
        config.processor.event_ids_s,
        config.processor.counted_items,
        config.remembered_s,
        config.impression_items,
        config.processor.impression_half_life_s,
    )


@contextmanager
def _set_with(stop: threading.Event) -> Iterator[threading.Event]:
    """An event that is set once `stop` is, and can be set without it; `stop` is set at the end."""
    ending = threading.Event()

    def follow() -> None:
        stop.wait()
        ending.set()

    follower = threading.Thread(target=follow, name="engine-stop", daemon=True)
    follower.start()
    try:
        yield ending
    finally:
        stop.set()
        follower.join()


def events_archive(
    config: EngineConfig, brokers: str, log_name: str, directory: Path, stop: threading.Event, outage: Outage
) -> Processor[Sequence[LogRecord[Logged]]]:
    """What keeps the archive of events; poison is the live processor's to report."""
    sink = ArchiveSink(directory, _archive_name(EVENTS, log_name), EVENTS_LAYOUT, *_archive_limits(config))
    source = _archive_source(config, brokers, f"{config.processor.group}-archive", EVENTS)
    settings, metrics = config.processor, ProcessorMetrics("archive")
    again = (settings.retry_max_s, settings.accept_new_log, outage)
    return Processor(source, reading(decode), sink, metrics, stop, None, *again)


def exposures_archive(
    config: EngineConfig,
    brokers: str,
    log_name: str,
    directory: Path,
    poison: DeadLetters,
    stop: threading.Event,
    outage: Outage,
) -> Processor[Sequence[LogRecord[exposure_pb2.LoggedExposure]]]:
    """What keeps the archive of exposures."""
    sink = ArchiveSink(directory, _archive_name(EXPOSURES, log_name), EXPOSURES_LAYOUT, *_archive_limits(config))
    source = _archive_source(config, brokers, f"{config.processor.group}-exposures", EXPOSURES)
    settings, metrics = config.processor, ProcessorMetrics("exposures")
    again = (settings.retry_max_s, settings.accept_new_log, outage)
    return Processor(source, reading(decode_exposure), sink, metrics, stop, poison, *again)


def _archive_source(config: EngineConfig, brokers: str, group: str, topic: Topic) -> KafkaSource:
    # Its own consumer group: an archive may lag by a whole file while Redis is up to date.
    settings = config.processor
    return KafkaSource(brokers, config.kafka, group, settings.batch_events, settings.fetch_mb, topic)


def _archive_name(topic: Topic, log_name: str) -> str:
    return f"{topic.name}@{log_name}" if log_name else topic.name


def _archive_limits(config: EngineConfig) -> tuple[int, float]:
    return config.processor.archive_rows, config.processor.archive_flush_s


def run_until_stopped(loops: Sequence[Callable[[], None]], stop: threading.Event) -> None:
    """Run every loop in a thread of its own; one that ends or raises stops the others, and what it raised is raised."""
    with ThreadPoolExecutor(len(loops), "engine-process") as threads:
        running = [threads.submit(loop) for loop in loops]
        wait(running, return_when=FIRST_EXCEPTION)
        stop.set()
    for ended in running:
        ended.result()


def current_generation(config: EngineConfig) -> Callable[[], int | None]:
    """The embedding generation of the current bundle; None without a bundle."""
    return follow_bundle(config, lambda path: read_manifest(path).generation)


def current_user_model(config: EngineConfig) -> Callable[[], UserModel | None]:
    """What computes records in the current bundle's space; None without a bundle.

    A factorization's vectors come from whole histories, which the processor has only of users who are not published:
    their live session is all that is known of them, and enough to leave the cold start with.
    """

    def load(path: Path) -> UserModel | None:
        bundle = open_bundle(path)
        newcomers_only = bundle.manifest.embeddings == "als"
        if newcomers_only:
            log.info("bundle %s has no user tower: published records stay as they are", bundle.version)
        return UserModel(bundle, *load_embedders(bundle), newcomers_only)

    return follow_bundle(config, load)


def follow_bundle(config: EngineConfig, load: Callable[[Path], _T | None]) -> Callable[[], _T | None]:
    """What `load` makes of the current bundle; the pointer is looked at again every `bundle.poll_s`.

    A bundle that does not load leaves what was there before.
    """
    store = BundleStore(config.bundle.directory)
    looked_at = float("-inf")
    version = ""
    loaded: _T | None = None

    def current() -> _T | None:
        nonlocal looked_at, version, loaded
        if time.monotonic() - looked_at >= config.bundle.poll_s:
            looked_at = time.monotonic()
            try:
                path = store.current()
                if path.name != version:
                    version = path.name
                    loaded = load(path)
            except BundleError as error:
                log.log(logging.ERROR if version else logging.DEBUG, "%s", error)
        return loaded

    return current
