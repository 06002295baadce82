"""`engine bench taste`: are slates about their users' taste?"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.needs import needs
from engine_bench.commands.options import JsonFile, measured


@needs("cpu", "train")
def taste(
    json_file: JsonFile = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Train this many times, with seeds 1, 2, …")] = 3,
    data: Annotated[
        Path | None, typer.Option(help="Data directory; by default a world of the demonstration for each seed.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with the training settings.")] = None,
    serving_config: Annotated[
        Path | None, typer.Option("--serving-config", help="TOML file with the serving settings.")
    ] = None,
) -> None:
    """How much of a slate is in its user's main categories, and how alike the slates of different users are."""
    from engine.config.serving import EngineConfig
    from engine.training.config import TrainingConfig
    from engine_bench.taste import run_taste

    training, serving = TrainingConfig.load(config), EngineConfig.load(serving_config)
    measured(json_file, partial(run_taste, data, range(1, seeds + 1), training, serving), _show)


def _show(result: dict[str, Any]) -> None:
    from engine.cli.evaluation_tables import show_taste
    from engine.evaluation.taste import TasteFigures

    for seed, figures in result["seeds"].items():
        show_taste(f"seed {seed}", [TasteFigures(**one) for one in figures])
    lowest, highest = result["lowest_main_share"], result["highest_most_shared"]
    print(f"lowest share in main categories {lowest:.2f}, most slates that share an item {highest:.2f}")
