"""The synthetic world as canonical tables, and from them the world again."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from engine.data.files import read_frame
from engine.data.tables import Tables, make_tables, write_tables
from engine.errors import ConfigError, DataError, described
from engine.types import EventType
from engine_bench.synthetic.catalogue import item_ids, items_frame, user_ids, users_frame
from engine_bench.synthetic.events import COUNTRIES, EventColumns, simulate_events
from engine_bench.synthetic.words import DEVICES, SURFACES
from engine_bench.synthetic.world import World, WorldSize

EVENTS_PER_USER: Final = 150
# What makes the same world again; nothing of training or serving reads it.
RECIPE: Final = "world.json"
_EVENT_NAMES: Final = tuple(kind.name.lower() for kind in EventType)


def synthesize(
    out_dir: Path,
    size: WorldSize,
    event_count: int | None = None,
    seed: int = 1,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Tables:
    """Make a world, let its users act, and write the tables and its recipe to `out_dir`; the truth is written nowhere.

    Args:
        event_count: about how many events; EVENTS_PER_USER for each user by default. Sessions are kept whole.
        on_progress: called with the number of events so far.

    Raises:
        ConfigError: a size that makes no world. DataError: see write_tables.

    Cost: 10,000 items and 300,000 events in a few seconds; a million items and a million events in
    about 20 s and 1.2 GB, on one core.
    """
    events = event_count if event_count is not None else EVENTS_PER_USER * size.users
    for name, value in (("items", size.items), ("users", size.users), ("days", size.days), ("events", events)):
        if value < 1:
            raise ConfigError(f"{name}: at least 1 is needed, found {value}")
    world = World(size, seed)
    tables = tables_of(world, simulate_events(world, events, on_progress))
    write_tables(tables, out_dir)
    (out_dir / RECIPE).write_text(json.dumps(asdict(size) | {"seed": seed}))
    return tables


def world_of(directory: Path) -> World:
    """The world of a data directory that synthesize wrote.

    Raises:
        DataError: it has no recipe, or items of another world.

    Cost: see World.
    """
    path = directory / RECIPE
    try:
        recipe = json.loads(path.read_text())
        world = World(WorldSize(**{name: int(recipe[name]) for name in WorldSize.__annotations__}), int(recipe["seed"]))
    except OSError:
        raise DataError(
            f"{path}: is missing; `engine synth` writes it, and only its worlds have a known truth"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no recipe of a world: {described(error)}") from None
    prices = read_frame(directory / "items.parquet")["price"]
    if len(prices) != world.size.items or not np.array_equal(prices.to_numpy(), world.items.prices):
        raise DataError(f"{path}: the items beside it are those of another world")
    return world


def tables_of(world: World, events: EventColumns) -> Tables:
    """Canonical tables of a world and of what happened in it."""
    return make_tables(_interactions_frame(world, events), items_frame(world), users_frame(world))


def _interactions_frame(world: World, events: EventColumns) -> pl.DataFrame:
    surfaces = pl.Series([*SURFACES, None], dtype=pl.String)
    sessions = pl.Series(np.unique(events.sessions, return_inverse=True)[1])
    return pl.DataFrame(
        {
            "user_id": user_ids(world.size.users).gather(events.users),
            "item_id": item_ids(world.size.items).gather(events.items),
            "event_type": pl.Series(_EVENT_NAMES).gather(events.event_types),
            "timestamp_ms": events.timestamps_ms,
            "value": pl.Series(events.values).fill_nan(None),
            "surface": surfaces.gather(events.surfaces % len(surfaces)),
            "device": pl.Series(DEVICES).gather(events.devices),
            "country": pl.Series(COUNTRIES).gather(events.countries),
            "session_id": pl.select(pl.lit("session-") + sessions.cast(pl.String)).to_series(),
        }
    )
