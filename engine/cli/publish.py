"""`engine publish-users`: compute every user's record and put it where requests look it up."""

import logging
import re
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.needs import needs
from engine.cli.options import (
    BundlesOption,
    ConfigOption,
    RedisOption,
    SkipBadRowsOption,
    announce_private,
    load_config,
)
from engine.cli.progress import progress_bar
from engine.config.serving import EngineConfig
from engine.errors import BundleError, ConfigError, DataError

if TYPE_CHECKING:
    from engine.bundle.bundle import Bundle
    from engine.bundle.store import BundleStore

log = logging.getLogger(__name__)

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@needs("cpu")
def publish_users(
    data: Annotated[Path, typer.Argument(help="Data directory: interactions, items, users.")],
    config: ConfigOption = None,
    bundles: BundlesOption = None,
    redis_url: RedisOption = None,
    skip_bad_rows: SkipBadRowsOption = 0,
    every: Annotated[str | None, typer.Option(help="Repeat at this interval, e.g. 1h; once without it.")] = None,
) -> None:
    """Compute the record of every user in the current bundle's vector space and write it to Redis.

    A bundle that `engine train` has left waiting gets its users first, and becomes the current one then.
    """
    settings = load_config(config, bundles, redis_url)
    announce_private(settings, kafka=False)
    interval_s = None if every is None else parse_interval(every)
    while True:
        started = time.monotonic()
        count = publish_once(data, settings, skip_bad_rows)
        print(f"published {count:,} users in {time.monotonic() - started:.1f} s")
        if interval_s is None:
            return
        time.sleep(max(0.0, interval_s - (time.monotonic() - started)))


def publish_once(data: Path, settings: EngineConfig, skip_bad_rows: int = 0) -> int:
    """Read the data, open the current bundle, publish everyone; returns how many users. New items get their vectors.

    The same for every other bundle that a variant of an experiment names: its users need vectors of its own space.
    """
    from engine.bundle.bundle import open_bundle
    from engine.bundle.store import BundleStore
    from engine.experiments.named import named_bundles

    if not data.is_dir():
        # Read last, since it takes the new items of the overlay in; what is wrong with it at first sight is said first.
        raise DataError(f"{data}: no such directory")
    store = BundleStore(settings.bundle.directory)
    bundle, count = _publish_next(store, data, settings, skip_bad_rows)
    if bundle is None:
        bundle = open_bundle(store.current())
        count = publish_for(bundle, data, settings, skip_bad_rows)
    generations = {bundle.manifest.generation}
    for name in named_bundles(settings, time.time_ns() // 1_000_000):
        try:
            other = open_bundle(store.directory / name)
        except BundleError as error:
            log.warning("nobody is published for a bundle that a variant names: %s", error)
            continue
        if other.manifest.generation not in generations:
            generations.add(other.manifest.generation)
            publish_for(other, data, settings, skip_bad_rows)
    return count


def _publish_next(
    store: "BundleStore", data: Path, settings: EngineConfig, skip_bad_rows: int
) -> tuple["Bundle | None", int]:
    """Publish for the bundle that waits, and make it current; it and how many users, or None where none waits."""
    from engine.bundle.bundle import open_bundle

    waiting = store.next()
    if waiting is None:
        return None, 0
    try:
        bundle = open_bundle(waiting)
    except BundleError as error:
        log.error("bundle %s, which waits for its users, is not made current: %s", waiting.name, error)
        return None, 0
    count = publish_for(bundle, data, settings, skip_bad_rows)
    store.point_to(waiting.name)
    print(f"{waiting.name} is current in {store.directory}")
    return bundle, count


def publish_for(bundle: "Bundle", data: Path, settings: EngineConfig, skip_bad_rows: int = 0) -> int:
    """Publish everyone in the space of one bundle; returns how many users."""
    from engine.adapters.redis.catalog import RedisCatalogPublisher
    from engine.adapters.redis.store import RedisPublisher
    from engine.app.model import load_embedders, load_item_embedder
    from engine.app.serve import redis_url
    from engine.data.build import load_dataset
    from engine.data.rules import TableRules
    from engine.publish.items import moved_items, new_items
    from engine.publish.users import publish_users as publish
    from engine.publish.users import recent_histories

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
        with progress_bar() as progress:
            return publish(
                bundle,
                dataset,
                embed,
                fold_in,
                publisher,
                lambda done, total: progress(done, total, "publish users"),
            )


def parse_interval(text: str) -> float:
    """Seconds of an interval like 90s, 30m, 1h, 1d. Raises ConfigError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"--every: {text!r} is no interval; write e.g. 30m or 1h")
    return float(match[1]) * _UNITS_S[match[2]]
