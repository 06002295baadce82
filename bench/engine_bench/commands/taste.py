"""`engine bench taste`: are slates about their users' taste?"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.needs import needs
from engine_bench.commands.options import JsonFile, measured

if TYPE_CHECKING:
    from engine_bench.taste_figures import TasteFigures


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
    from engine_bench.taste_figures import TasteFigures

    for seed, figures in result["seeds"].items():
        _show_table(f"seed {seed}", [TasteFigures(**one) for one in figures])
    lowest, highest = result["lowest_main_share"], result["highest_most_shared"]
    print(f"lowest share in main categories {lowest:.2f}, most slates that share an item {highest:.2f}")


def _show_table(title: str, figures: "list[TasteFigures]") -> None:
    """Shares of ten items in the user's main categories; by chance, by retrieval score alone, and as served."""
    from engine.cli.evaluation_tables import print_table

    headings = ("chance", "retrieval, 200", "retrieval, 10", "served", "one item in", "different items")
    rows = [
        (
            f"{one.surface}, {one.moment}",
            f"{one.chance:.2f}",
            f"{one.retrieval_share_at_200:.2f}",
            f"{one.retrieval_share:.2f}",
            f"{one.main_share:.2f}",
            f"{one.most_shared:.0%} of slates",
            f"{one.distinct_items:,}",
        )
        for one in figures
    ]
    print_table(f"{title}: share in the user's main categories", headings, rows, first="surface, asked")
