"""Small seeded worlds with a structure that a model must find."""

import numpy as np
import polars as pl

from engine.data.dataset import Dataset, Interactions
from engine.types import EventType

WORDS = ("amber", "basalt", "cedar", "dune", "ember", "fjord", "grove", "harbor")
NO_VOCABULARIES: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("surface", "device", "country", "age_group", "location", "signup_source"), ()
)


def items_frame(item_count: int, group_count: int) -> pl.DataFrame:
    """Canonical items; item r belongs to group r % group_count and says so in its category and title."""
    groups = [row % group_count for row in range(item_count)]
    return pl.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(item_count)],
            "title": [f"The {WORDS[group]} number {row}" for row, group in enumerate(groups)],
            "description": [None] * item_count,
            "category": [f"group {group}" for group in groups],
            "brand": [None] * item_count,
            "price": [1.0 + row for row in range(item_count)],
            "published_ms": [1_700_000_000_000 + 86_400_000 * row for row in range(item_count)],
            "attributes": [f"{WORDS[group]}|all" for group in groups],
        },
        schema_overrides={"description": pl.String, "brand": pl.String},
    )


def dataset_of(
    users: np.ndarray, rows: np.ndarray, timestamps_ms: np.ndarray, user_count: int, items: pl.DataFrame
) -> Dataset:
    """Clicks as a data set, put in time order."""
    order = np.argsort(timestamps_ms, kind="stable")
    unknown = np.zeros(len(rows), np.int16)
    events = Interactions(
        users[order].astype(np.int32), rows[order].astype(np.int32), np.full(len(rows), EventType.CLICK, np.uint8),
        timestamps_ms[order].astype(np.int64), np.full(len(rows), np.nan, np.float32), unknown, unknown, unknown,
    )  # fmt: skip
    users = pl.DataFrame({"user_id": [f"u{user}" for user in range(user_count)]}).with_columns(
        pl.lit(None, pl.String).alias(name) for name in ("age_group", "location", "signup_source")
    )
    return Dataset(items, users, events, NO_VOCABULARIES)


def taste_world(seed: int, user_count: int = 80, item_count: int = 120, length: int = 16) -> Dataset:
    """Each user clicks in one of four groups of items, nine times in ten; which one is all there is to learn."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 4, (user_count, 1))
    rows = rng.integers(0, item_count // 4, (user_count, length)) * 4 + groups
    noise = rng.random(rows.shape) < 0.1
    rows[noise] = rng.integers(0, item_count, int(noise.sum()))
    return _by_user(rows, item_count, 4)


def chain_world(seed: int, user_count: int = 120, item_count: int = 40, length: int = 20) -> Dataset:
    """After item r comes item r + 1, nine times in ten: the order is all there is to learn."""
    rng = np.random.default_rng(seed)
    steps = np.ones((user_count, length), np.int64)
    jumps = rng.random(steps.shape) < 0.1
    steps[jumps] = rng.integers(0, item_count, int(jumps.sum()))
    steps[:, 0] = rng.integers(0, item_count, user_count)
    return _by_user(np.cumsum(steps, axis=1) % item_count, item_count, 4)


def _by_user(rows: np.ndarray, item_count: int, group_count: int) -> Dataset:
    user_count, length = rows.shape
    users = np.repeat(np.arange(user_count), length)
    timestamps_ms = 1_700_000_000_000 + np.tile(np.arange(length) * 60_000, user_count)
    return dataset_of(users, rows.ravel(), timestamps_ms, user_count, items_frame(item_count, group_count))


def without_last(dataset: Dataset) -> tuple[Dataset, np.ndarray]:
    """All but each user's last event, and the rows of those: int64 (users,). Every user must have events."""
    histories = dataset.histories()
    events = dataset.interactions
    last_position = np.zeros(dataset.user_count, np.int64)
    last_position[events.users] = np.arange(len(events))
    kept = np.ones(len(events), np.bool_)
    kept[last_position] = False
    return dataset.with_interactions(events.select(kept)), histories.rows[histories.offsets[1:] - 1]


def hit_rate(scores: np.ndarray, targets: np.ndarray, k: int) -> float:
    """Share of rows of scores (n, items) whose target is among the k highest."""
    better = (scores > np.take_along_axis(scores, targets[:, None], axis=1)).sum(axis=1)
    return float((better < k).mean())


def unseen_hit_rate(
    queries: np.ndarray, item_vectors: np.ndarray, training: Dataset, targets: np.ndarray, k: int
) -> float:
    """hit_rate of latest-state queries (users, dim) over the items that are not in the user's training history."""
    scores = queries @ item_vectors.T
    histories = training.histories()
    users = np.repeat(np.arange(training.user_count), histories.lengths())
    scores[users, histories.rows] = -np.inf
    return hit_rate(scores, targets, k)
