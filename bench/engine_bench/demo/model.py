"""The bundle of the demonstration: trained once, and used again until something that it came from has changed."""

import hashlib
import json
from pathlib import Path
from typing import Final

from rich.console import Console

import engine
from engine.app.model import train_bundle
from engine.bundle.bundle import open_bundle
from engine.bundle.store import BundleStore
from engine.cli.progress import progress_bar
from engine.data.dataset import Dataset
from engine.errors import BundleError
from engine.training.config import TrainingConfig

_MARK: Final = "trained-on.json"
# What a bundle is made by, beside its data and settings.
_CODE: Final = ("bundle", "data", "features", "training")


def ready_bundle(
    dataset: Dataset, data: Path, store: BundleStore, training: TrainingConfig, train: bool, console: Console
) -> Path:
    """The current bundle's directory: that of an earlier run where it fits, or a new one; says which.

    Args:
        data: the directory of the tables that `dataset` was made of.
        train: train in any case.
    """
    origin = fingerprint(data, training)
    known = None if train else _of_earlier_run(store, origin)
    if known is not None:
        console.print(
            f"bundle {known.name}, trained by an earlier run on the same data. To train again: --train, "
            "or make demo ARGS=--train"
        )
        return known
    with progress_bar() as progress:
        path = train_bundle(dataset, training, store, progress)
    (store.directory / _MARK).write_text(json.dumps({"bundle": path.name, "origin": origin}))
    console.print(f"bundle {path.name}, trained; the next run uses it again")
    return path


def fingerprint(data: Path, training: TrainingConfig) -> str:
    """What a bundle comes from: the tables, the settings, and the code that trains."""
    digest = hashlib.sha256(training.model_dump_json().encode())
    package = Path(engine.__file__).parent
    code = [path for part in _CODE for path in (package / part).rglob("*.py")]
    for path in (*sorted(data.glob("*.parquet")), *sorted(code)):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _of_earlier_run(store: BundleStore, origin: str) -> Path | None:
    try:
        mark = json.loads((store.directory / _MARK).read_text())
        path = store.current()
        if (mark["bundle"], mark["origin"]) != (path.name, origin):
            return None
        open_bundle(path)
    except (OSError, ValueError, KeyError, BundleError):
        return None
    return path
