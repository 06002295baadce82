"""When the demonstration trains, and when it uses what an earlier run has trained."""

import io
import shutil
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from engine.bundle.bundle import ITEM_TABLE_FILE
from engine.bundle.store import BundleStore
from engine.data.build import load_dataset
from engine.training.config import AlsConfig, RankerConfig, TrainingConfig
from engine_bench.demo.model import fingerprint, ready_bundle
from tests.conftest import Trained

QUICK = TrainingConfig(
    embeddings="als",
    als=AlsConfig(dim=8, iterations=2),
    ranker=RankerConfig(epochs=1, hidden=(8,), cross_rank=4, max_examples=100),
)


def ready(data: Path, store: BundleStore, training: TrainingConfig = QUICK, train: bool = False) -> tuple[Path, str]:
    said = io.StringIO()
    path = ready_bundle(load_dataset(data), data, store, training, train, Console(file=said, width=300))
    return path, said.getvalue()


def test_a_bundle_is_used_again_until_told_otherwise_or_it_is_broken(trained: Trained, tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "bundles")
    first, said = ready(trained.data, store)
    assert f"bundle {first.name}, trained; the next run uses it again" in said
    again, said = ready(trained.data, store)
    assert again == first
    assert "trained by an earlier run" in said
    assert "make demo ARGS=--train" in said
    told, _ = ready(trained.data, store, train=True)
    assert told != first
    with (told / ITEM_TABLE_FILE).open("r+b") as file:
        file.seek(500)
        file.write(b"broken")
    mended, said = ready(trained.data, store)
    assert mended != told
    assert "trained; the next run uses it again" in said


@pytest.mark.parametrize("what", ["data", "settings"])
def test_what_a_bundle_comes_from_is_told_apart(what: str, trained: Trained, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    before = fingerprint(data, QUICK)
    assert fingerprint(trained.data, QUICK) == before
    training = QUICK
    if what == "data":
        items = pl.read_parquet(data / "items.parquet")
        items.with_columns(price=pl.col("price") + 1).write_parquet(data / "items.parquet")
    else:
        training = QUICK.model_copy(update={"seed": 2})
    assert fingerprint(data, training) != before
