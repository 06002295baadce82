"""What the demonstration runs on: a data directory, and the users that it asks for."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from engine.data.dataset import Dataset
from engine.data.tables import Tables, read_tables, write_tables
from engine.errors import DataError
from engine.training.config import RankerConfig, TrainingConfig, TwoTowerConfig
from engine.types import Demographics
from engine_bench.datasets.completejourney import import_completejourney
from engine_bench.datasets.movielens import import_movielens
from engine_bench.synthetic.tables import synthesize
from engine_bench.synthetic.world import WorldSize

SEED = 1
_SIZE = WorldSize(items=5_000, users=1_000)
_TRAINING = TrainingConfig(two_tower=TwoTowerConfig(epochs=8), ranker=RankerConfig(epochs=4))
# The history of a user below the cold-start threshold.
THIN_EVENTS = 3
THIN_USER, UNKNOWN_USER = "demo-newcomer", "demo-nobody"


@dataclass(frozen=True, slots=True)
class World:
    """The synthetic world, and how a bundle is trained on it or on any other data.

    Two minutes in all on two cores: of epochs and examples there are as many as are still seen in what is shown.
    """

    size: WorldSize = _SIZE
    training: TrainingConfig = _TRAINING


@dataclass(frozen=True, slots=True)
class User:
    """Somebody to recommend for: kind is "known", "thin" or "unknown"."""

    user_id: str
    kind: str
    demographics: Demographics


def prepare_data(source: Path | None, target: Path, world: World) -> Tables:
    """Canonical tables in `target`: of a known data set, of canonical tables, or of a synthetic world without a source.

    A newcomer with THIN_EVENTS interactions is added, so that there is one in every data set. Raises DataError.
    """
    if source is None:
        synthesize(target, world.size, seed=SEED)
    elif not source.is_dir():
        raise DataError(f"{source}: no such directory")
    elif any(source.glob("ratings.csv*")):
        import_movielens(source, target)
    elif any(source.glob("transactions*.csv*")):
        import_completejourney(source, target)
    else:
        write_tables(read_tables(source), target)
    tables = _with_newcomer(read_tables(target))
    write_tables(tables, target)
    return tables


def choose_users(dataset: Dataset) -> list[User]:
    """Three users with a good deal of history and different tastes, the newcomer, and two unknown to the engine."""
    histories = dataset.histories()
    lengths = histories.lengths()
    by_length = np.argsort(-lengths, kind="stable")
    # Not the most extreme collectors: their histories say little about a normal reader of the table.
    resolved = by_length[len(by_length) // 20 : max(len(by_length) // 2, 4)]
    known = resolved[np.linspace(0, len(resolved) - 1, 3).astype(int)]
    user_ids = dataset.users["user_id"]
    users = [User(user_ids[int(user)], "known", Demographics()) for user in known]
    users.append(User(THIN_USER, "thin", Demographics()))
    users.append(User(UNKNOWN_USER, "unknown", Demographics()))
    ages = dataset.vocabularies["age_group"]
    if ages:
        users.append(User(UNKNOWN_USER, "unknown", Demographics(age_group=ages[0])))
    return users


def _with_newcomer(tables: Tables) -> Tables:
    events = tables.interactions
    busiest = events.group_by("user_id").len().sort("len", "user_id")["user_id"][-1]
    copied = (
        events.filter((pl.col("user_id") == busiest) & (pl.col("event_type") != "impression"))
        .sort("timestamp_ms")
        .tail(THIN_EVENTS)
        .with_columns(pl.lit(THIN_USER).alias("user_id"), pl.lit(None, pl.String).alias("event_id"))
        .select(events.columns)
    )
    return Tables(pl.concat([events.filter(pl.col("user_id") != THIN_USER), copied]), tables.items, tables.users)
