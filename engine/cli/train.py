"""`engine train`: from a data directory to a bundle."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.needs import needs
from engine.cli.options import ServingConfigOption, SkipBadRowsOption


class Embeddings(StrEnum):
    ALS = "als"
    TWO_TOWER = "two-tower"


@needs("cpu", "train")
def train(
    data: Annotated[Path, typer.Argument(help="Data directory: interactions, items, users.")],
    out: Annotated[Path, typer.Option(help="Directory of bundles; the new one becomes current.")] = Path("var/bundles"),
    embeddings: Annotated[Embeddings | None, typer.Option(help="Retrieval space; overrides the file.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with the training settings.")] = None,
    serving_config: ServingConfigOption = None,
    skip_bad_rows: SkipBadRowsOption = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="Overrides the file.")] = None,
) -> None:
    """Train embeddings and the ranker, build the index, and publish everything as one verified bundle."""
    from rich.console import Console

    from engine.assemble_model import train_bundle
    from engine.bundle.store import BundleStore
    from engine.cli.progress import progress_bar
    from engine.config import EngineConfig
    from engine.data.build import load_dataset
    from engine.data.rules import TableRules
    from engine.training.config import TrainingConfig

    settings = TrainingConfig.load(config)
    if embeddings is not None:
        settings = settings.model_copy(update={"embeddings": embeddings.value})
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    dataset = load_dataset(data, rules=TableRules.of(EngineConfig.load(serving_config), skip_bad_rows))
    with progress_bar() as progress:
        path = train_bundle(dataset, settings, BundleStore(out), progress)
    console = Console()
    console.print(f"bundle {path.name} is current in {out}", highlight=False)
    console.print((path / "metrics.json").read_text(), highlight=False)
