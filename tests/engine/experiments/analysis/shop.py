"""A simulated shop, event by event, in the archive's own columns: what a report makes of it has a known truth."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from engine.stream.archive import ARCHIVE_SCHEMA
from tests.engine.experiments.analysis.archive import DAY_MS, EXPOSURE_SCHEMA, HOUR_MS, START_MS

ITEMS = 300
# As in the synthetic world, so that a bundle of it knows them.
IDS = [f"item-{item:07d}" for item in range(ITEMS)]
CATEGORIES = {item: f"category-{place % 12}" for place, item in enumerate(IDS)}


@dataclass(frozen=True, slots=True)
class Shop:
    """What happens there. lift: relative, on the chance of a click. engine_share: of the users."""

    users: int = 3_000
    days: int = 14
    lift: float = 0.25
    engine_share: float = 0.5
    before_days: int = 7
    surfaces: tuple[str, ...] = ("home", "cart")


def open_shop(archive: Path, seed: int, shop: Shop) -> Path:
    """Simulate, and write what the engine would have archived; returns the archive."""
    random = np.random.default_rng(seed)
    users = shop.users
    activity = random.lognormal(0.3, 0.9, users)
    taste = random.beta(2.0, 12.0, users)
    engine = random.random(users) < shop.engine_share
    before = _visits(random, activity * shop.before_days / shop.days, shop.before_days, -shop.before_days)
    after = _visits(random, activity, shop.days, 0)
    exposures, clicked = _exposures(random, shop, after, taste, engine)
    events = pl.concat([_clicks_before(random, before, taste), _events(random, exposures, clicked)])
    _write(archive / "exposures", "engine.exposures.v1", exposures.select(list(EXPOSURE_SCHEMA)), "served_ms")
    _write(archive / "events", "engine.events.v1", events, "received_ms")
    return archive


def _visits(random: np.random.Generator, activity: np.ndarray, days: int, first_day: int) -> pl.DataFrame:
    sessions = random.poisson(activity)
    user = np.repeat(np.arange(len(activity)), sessions)
    start = START_MS + first_day * DAY_MS + (random.random(len(user)) * days * DAY_MS).astype(np.int64)
    return pl.DataFrame({"user": user, "start_ms": start, "visit": np.arange(len(user))})


def _exposures(
    random: np.random.Generator, shop: Shop, visits: pl.DataFrame, taste: np.ndarray, engine: np.ndarray
) -> tuple[pl.DataFrame, np.ndarray]:
    requests = 1 + random.poisson(0.8, visits.height)
    rows = np.repeat(np.arange(visits.height), requests)
    user = visits["user"].to_numpy()[rows]
    step = np.arange(len(rows)) - np.repeat(np.cumsum(requests) - requests, requests)
    served = visits["start_ms"].to_numpy()[rows] + step * 60_000 + random.integers(0, 20_000, len(rows))
    treated = engine[user]
    # The engine reaches the whole catalogue, the baseline the 40 most popular.
    reach = np.where(treated, ITEMS, 40)
    first = (random.random(len(rows)) * reach).astype(np.int64)
    items = (first[:, None] + np.arange(10) * 7) % reach[:, None]
    surface = random.integers(0, len(shop.surfaces), len(rows))
    devices, countries = np.array(["mobile", "desktop", "tablet"]), np.array(["DE", "AT", "FR"])
    chance = taste[user] * np.where(treated, 1.0 + shop.lift, 1.0)
    clicked = random.random(len(rows)) < chance
    latency = random.gamma(4.0, 1.5, len(rows)) * np.where(treated, 1.6, 1.0)
    frame = pl.DataFrame(
        {
            "request_id": [f"request-{number}" for number in range(len(rows))],
            "user_id": [f"user-{number}" for number in user],
            "unit_id": [f"user-{number}" for number in user],
            "surface": [shop.surfaces[place] for place in surface],
            "served_ms": served,
            "experiments": [
                [{"experiment": "worth", "variant": "engine" if one else "control", "overridden": False}]
                for one in treated
            ],
            "strategy": np.where(treated, "personalized", "popularity"),
            "degraded_reasons": [["ranking_skipped"] if one else [] for one in random.random(len(rows)) < 0.004],
            "item_ids": [[IDS[item] for item in line] for line in items],
            "propensities": [[1.0] * len(line) for line in items],
            "total_ms": latency,
            "device": devices[user % 3],
            "country": countries[(user // 3) % 3],
            "interaction_count": user % 20,
            "offset": np.arange(len(rows)),
        }
    )
    empty = {name: pl.lit(None, dtype) for name, dtype in EXPOSURE_SCHEMA.items() if name not in frame.columns}
    return frame.with_columns(**empty).cast(EXPOSURE_SCHEMA), clicked


def _events(random: np.random.Generator, exposures: pl.DataFrame, clicked: np.ndarray) -> pl.DataFrame:
    clicks = exposures.filter(pl.Series(clicked)).select(
        "user_id", "request_id", "surface", item_id=pl.col("item_ids").list.first(),
        event_type=pl.lit("click"), timestamp_ms=pl.col("served_ms") + 15_000,
    )  # fmt: skip
    bought = random.random(clicks.height) < 0.25
    # Without a request: attributed by user and item.
    purchases = clicks.filter(pl.Series(bought)).select(
        "user_id", "item_id", event_type=pl.lit("purchase"), timestamp_ms=pl.col("timestamp_ms") + HOUR_MS // 10,
        value=pl.Series(random.lognormal(3.0, 0.7, int(bought.sum()))),
    )  # fmt: skip
    return _completed(pl.concat([clicks, purchases], how="diagonal"), "after")


def _clicks_before(random: np.random.Generator, visits: pl.DataFrame, taste: np.ndarray) -> pl.DataFrame:
    clicked = random.random(visits.height) < taste[visits["user"].to_numpy()] * 2
    frame = visits.select(
        user_id=pl.format("user-{}", "user"), item_id=pl.lit(IDS[1]), timestamp_ms="start_ms",
        event_type=pl.when(pl.Series(clicked)).then(pl.lit("click")).otherwise(pl.lit("view")),
    )  # fmt: skip
    return _completed(frame, "before")


def _completed(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    frame = frame.with_columns(
        event_id=pl.format(name + "-{}", pl.int_range(pl.len())), received_ms="timestamp_ms",
        partition=pl.lit(0), offset=pl.int_range(pl.len()),
    )  # fmt: skip
    empty = {name: pl.lit(None, dtype) for name, dtype in ARCHIVE_SCHEMA.items() if name not in frame.columns}
    return frame.with_columns(**empty).select(list(ARCHIVE_SCHEMA)).cast(dict(ARCHIVE_SCHEMA))


def _write(directory: Path, name: str, frame: pl.DataFrame, arrival: str) -> None:
    """A file a day, for speed, in the directory of its first hour."""
    day = pl.from_epoch(arrival, time_unit="ms").dt.strftime("%Y-%m-%d/00")
    for (hour,), part in frame.group_by(day):
        (directory / str(hour)).mkdir(parents=True, exist_ok=True)
        first, last = part["offset"].min(), part["offset"].max()
        part.write_parquet(directory / str(hour) / f"{name}-0-{first:012d}-{last:012d}.parquet")
