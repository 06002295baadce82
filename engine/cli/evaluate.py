"""`engine evaluate`: how good the recommendations are, offline, with standard errors."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from engine.evaluation.run import MethodResult


class Protocol(StrEnum):
    LEAVE_ONE_OUT = "leave-one-out"


def evaluate(
    data: Annotated[Path, typer.Argument(help="Data directory: interactions, items, users.")],
    protocol: Annotated[Protocol, typer.Option(help="How the data is split.")] = Protocol.LEAVE_ONE_OUT,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Train this many times, with seeds 1, 2, …")] = 3,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with the training settings.")] = None,
    diversity_weight: Annotated[float, typer.Option(min=0, max=1, help="For the pipeline with MMR on.")] = 0.1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here, too.")] = None,
) -> None:
    """Train on all but each user's last event, then look for that event in unsampled top-k lists of every method."""
    from engine.cli.progress import progress_bar
    from engine.data.build import load_dataset
    from engine.evaluation.run import evaluate_leave_one_out
    from engine.training.config import TrainingConfig

    dataset = load_dataset(data)
    settings = TrainingConfig.load(config)
    with progress_bar() as progress:
        users, results = evaluate_leave_one_out(dataset, settings, range(1, seeds + 1), diversity_weight, progress)
    _show(protocol, users, seeds, results)
    if json_file is not None:
        report = {
            "protocol": protocol.value,
            "users": users,
            "seeds": seeds,
            "methods": {result.method: asdict(result) for result in results},
        }
        json_file.write_text(json.dumps(report, indent=1))


def _show(protocol: Protocol, users: int, seeds: int, results: "list[MethodResult]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{protocol.value}, {users:,} users, mean over {seeds} seeds (± standard error)")
    table.add_column("method")
    for heading in ("HR@10", "NDCG@10", "HR@50", "coverage@10", "similarity@10"):
        table.add_column(heading, justify="right")
    for result in results:
        estimates = (result.hr_at_10, result.ndcg_at_10, result.hr_at_50)
        table.add_row(
            result.method,
            *(f"{estimate.mean:.4f} ± {estimate.standard_error:.4f}" for estimate in estimates),
            f"{result.coverage_at_10:.3f}",
            f"{result.intra_list_similarity_at_10.mean:.3f}",
        )
    Console(width=110).print(table)
