"""Publish the users of a data directory, and the moved vectors of new items, to Redis."""

import logging
import time
from contextlib import ExitStack, closing
from pathlib import Path

from engine.adapters.redis.catalog import RedisCatalogPublisher
from engine.adapters.redis.store import RedisPublisher
from engine.app.dependencies import redis_url
from engine.app.model import load_embedders, load_item_embedder
from engine.bundle.bundle import Bundle, open_bundle
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.data.build import load_dataset
from engine.data.rules import TableRules
from engine.errors import BundleError, DataError
from engine.experiments.settings import named_bundles
from engine.logs import Progress
from engine.publish.items import moved_items, new_items
from engine.publish.users import publish_users, recent_histories

log = logging.getLogger(__name__)

# Called with (users done, users in all).


def publish_once(data: Path, settings: EngineConfig, skip_bad_rows: int = 0, progress: Progress | None = None) -> int:
    """Read the data, open the current bundle, publish everyone; returns how many users. New items get their vectors.

    The same for every other bundle that a variant of an experiment names: its users need vectors of its own space.
    """

    if not data.is_dir():
        # Read last, since it takes the new items of the overlay in; what is wrong with it at first sight is said first.
        raise DataError(f"{data}: no such directory")
    store = BundleStore(settings.bundle.directory)
    bundle, count = _publish_next(store, data, settings, skip_bad_rows, progress)
    if bundle is None:
        bundle = open_bundle(store.current())
        count = publish_for(bundle, data, settings, skip_bad_rows, progress)
    generations = {bundle.manifest.generation}
    for name in named_bundles(settings, time.time_ns() // 1_000_000):
        try:
            other = open_bundle(store.directory / name)
        except BundleError as error:
            log.warning("nobody is published for a bundle that a variant names: %s", error)
            continue
        if other.manifest.generation not in generations:
            generations.add(other.manifest.generation)
            publish_for(other, data, settings, skip_bad_rows, progress)
    return count


def _publish_next(
    store: BundleStore, data: Path, settings: EngineConfig, skip_bad_rows: int, progress: Progress | None
) -> tuple[Bundle | None, int]:
    """Publish for the bundle that waits, and make it current; it and how many users, or None where none waits."""
    waiting = store.next()
    if waiting is None:
        return None, 0
    try:
        bundle = open_bundle(waiting)
    except BundleError as error:
        log.error("bundle %s, which waits for its users, is not made current: %s", waiting.name, error)
        return None, 0
    count = publish_for(bundle, data, settings, skip_bad_rows, progress)
    store.point_to(waiting.name)
    print(f"{waiting.name} is current in {store.directory}")
    return bundle, count


def publish_for(
    bundle: Bundle, data: Path, settings: EngineConfig, skip_bad_rows: int = 0, progress: Progress | None = None
) -> int:
    """Publish everyone in the space of one bundle; returns how many users."""
    embed, fold_in = load_embedders(bundle)
    with ExitStack() as resources:
        url = resources.enter_context(redis_url(settings))
        publisher = resources.enter_context(closing(RedisPublisher(url, settings.redis, settings.remembered_s)))
        catalogue = resources.enter_context(closing(RedisCatalogPublisher(url, settings.redis)))
        items = new_items(bundle, catalogue.stored())
        dataset = load_dataset(data, items, TableRules.of(settings, skip_bad_rows))
        catalogue.write(moved_items(bundle, dataset, items, load_item_embedder(bundle), embed))
        if bundle.manifest.embeddings == "two-tower":
            for batch in recent_histories(dataset, settings.redis.history_limit):
                publisher.publish_histories(batch)
        return publish_users(bundle, dataset, embed, fold_in, publisher, progress)
