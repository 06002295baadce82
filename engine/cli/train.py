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
    out: Annotated[Path, typer.Option(help="Directory of bundles that the new one goes into.")] = Path("var/bundles"),
    embeddings: Annotated[Embeddings | None, typer.Option(help="Retrieval space; overrides the file.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with the training settings.")] = None,
    serving_config: ServingConfigOption = None,
    skip_bad_rows: SkipBadRowsOption = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="Overrides the file.")] = None,
    use: Annotated[
        bool, typer.Option("--use", help="Have it served at once, though its users have no records yet.")
    ] = False,
) -> None:
    """Train embeddings and the ranker, build the index, and check everything as one bundle.

    The first bundle of a directory becomes current. A later one waits until `engine publish-users` has put its users'
    records in place: records are of one embedding space, and served before, everybody would be a stranger to it.
    """
    from rich.console import Console

    from engine.app.model import train_bundle
    from engine.bundle.store import BundleStore
    from engine.cli.bundles import check_and_offer, refusal
    from engine.cli.progress import progress_bar
    from engine.config.serving import EngineConfig
    from engine.data.build import load_dataset
    from engine.data.rules import TableRules
    from engine.training.config import TrainingConfig

    settings = TrainingConfig.load(config)
    if embeddings is not None:
        settings = settings.model_copy(update={"embeddings": embeddings.value})
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    store = BundleStore(out)
    serving = EngineConfig.load(serving_config)
    settings = settings.model_copy(update={"seen": serving.seen})
    dataset = load_dataset(data, rules=TableRules.of(serving, skip_bad_rows))
    with progress_bar() as progress:
        path = train_bundle(dataset, settings, store, progress, make_current=False)
    with refusal():
        check_and_offer(store, path, serving_config, at_once=use)
    console = Console()
    console.print((path / "metrics.json").read_text(), highlight=False)
