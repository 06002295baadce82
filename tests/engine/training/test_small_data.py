"""Data too small or too much alike: a bundle that loads, or one sentence that says what is missing."""

from pathlib import Path

import polars as pl
import pytest

from engine.app.model import load_model, train_bundle
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.data.build import build_dataset
from engine.data.tables import make_tables
from engine.errors import DataError
from engine.training.config import AlsConfig, RankerConfig, TrainingConfig, TwoTowerConfig

T0_MS = 1_764_000_000_000
Rows = list[tuple[str, str, str, int]]


def training(embeddings: str, split: str = "per-user-tail") -> TrainingConfig:
    return TrainingConfig(
        threads=1,
        embeddings=embeddings,
        als=AlsConfig(dim=64, iterations=2),
        two_tower=TwoTowerConfig(dim=16, window=20, layers=1, epochs=1),
        ranker=RankerConfig(epochs=1, split=split),
    )


def train(home: Path, rows: Rows, item_count: int, config: TrainingConfig) -> None:
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "event_type", "timestamp_ms"], orient="row")
    items = pl.DataFrame({"item_id": [f"i{row}" for row in range(item_count)], "title": "!"})
    path = train_bundle(build_dataset(make_tables(events, items)), config, BundleStore(home))
    load_model(path, EngineConfig())


def visits(users: int, items: int, count: int, kind: str = "click", step_ms: int = 1000) -> Rows:
    return [(f"u{k % users}", f"i{(k * 5) % items}", kind, T0_MS + k * step_ms) for k in range(count)]


ALIKE: Rows = [(f"u{u}", f"i{k}", "click", T0_MS + u * 10**6 + k * 1000) for u in range(5) for k in range(8)]
ENOUGH = {
    "everybody alike": (ALIKE, 8),
    "one user": (visits(1, 8, 8), 8),
    "no words, and fewer items than dimensions": (visits(9, 7, 60, "view"), 7),
    "items that nobody took": (visits(9, 7, 60), 300),
    "all at one moment": (visits(9, 7, 60, step_ms=0), 7),
    "purchases alone": (visits(9, 7, 60, "purchase"), 7),
}
TOO_LITTLE = {
    "everybody came once": ([(f"u{k}", f"i{k}", "click", T0_MS + k) for k in range(10)], "10 users came once"),
    "one item": ([(f"u{k % 5}", "i0", "click", T0_MS + k) for k in range(20)], "all 20 events are on item 'i0'"),
    "always the same": (
        [(f"u{k % 5}", f"i{k % 5}", "click", T0_MS + k) for k in range(20)], "5 came more than once, but always",
    ),
    "impressions": (visits(5, 7, 40, "impression"), "of the events there are 40 of type impression"),
    "dwell": (visits(5, 7, 40, "dwell"), "there are 40 of type dwell"),
    "all sent back": (
        [(f"u{k % 5}", f"i{k % 7}", kind, T0_MS + k * 1000) for k in range(20) for kind in ("purchase", "return")],
        "taken back",
    ),
}  # fmt: skip


@pytest.mark.parametrize("embeddings", ["als", "two-tower"])
@pytest.mark.parametrize("name", ENOUGH)
def test_a_bundle_that_loads(tmp_path: Path, name: str, embeddings: str) -> None:
    """Case 10-everybody-came-once, part b, among them."""
    rows, item_count = ENOUGH[name]
    train(tmp_path, rows, item_count, training(embeddings))


def test_one_user_of_two_events_is_enough_for_als_and_one_too_few_for_towers(tmp_path: Path) -> None:
    train(tmp_path, visits(1, 2, 2), 2, training("als"))
    with pytest.raises(DataError, match="the two-tower model needs one more, --embeddings als does not"):
        train(tmp_path, visits(1, 2, 2), 2, training("two-tower"))


@pytest.mark.parametrize("split", ["per-user-tail", "global-time"])
@pytest.mark.parametrize("name", TOO_LITTLE)
def test_what_is_missing_is_said(tmp_path: Path, name: str, split: str) -> None:
    """Case 10-everybody-came-once, part a, among them."""
    rows, wanted = TOO_LITTLE[name]
    with pytest.raises(DataError, match=r"^training needs ") as refusal:
        train(tmp_path, rows, 10, training("als", split))
    assert wanted in str(refusal.value)
    assert not any(tmp_path.iterdir())


def test_a_cut_in_time_that_leaves_no_example_says_so(tmp_path: Path) -> None:
    rows: Rows = [(f"u{k // 2}", f"i{k % 2}", "click", T0_MS) for k in range(20)]
    with pytest.raises(DataError, match=r'ranker\.split = "global-time"'):
        train(tmp_path, rows, 10, training("als", "global-time"))
