"""`engine evaluate`: how good the recommendations are, offline, with standard errors."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from engine.data.dataset import Dataset
    from engine.evaluation.metrics import Estimate
    from engine.evaluation.run import MethodResult
    from engine.evaluation.run_next_event import NextEventReport
    from engine.training.config import TrainingConfig


class Protocol(StrEnum):
    LEAVE_ONE_OUT = "leave-one-out"
    NEXT_EVENT = "next-event"


def evaluate(
    data: Annotated[Path, typer.Argument(help="Data directory: interactions, items, users.")],
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="leave-one-out: each user's last event, every method through serving. next-event: each user's last "
            "events replayed one by one, with and without what is fresh."
        ),
    ] = Protocol.LEAVE_ONE_OUT,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Train this many times, with seeds 1, 2, …")] = 3,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with the training settings.")] = None,
    serving_config: Annotated[
        Path | None, typer.Option("--serving-config", help="For next-event: TOML file with the serving settings.")
    ] = None,
    diversity_weight: Annotated[
        float, typer.Option(min=0, max=1, help="For leave-one-out: of the pipeline with MMR on.")
    ] = 0.1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here, too.")] = None,
) -> None:
    """Train without each user's last events, then look for those in unsampled top-k lists of every method."""
    from engine.data.build import load_dataset
    from engine.training.config import TrainingConfig

    dataset = load_dataset(data)
    training = TrainingConfig.load(config)
    if protocol is Protocol.LEAVE_ONE_OUT:
        figures = _leave_one_out(dataset, training, seeds, diversity_weight)
    else:
        figures = _next_event(dataset, training, seeds, serving_config)
    if json_file is not None:
        json_file.write_text(json.dumps({"protocol": protocol.value, "seeds": seeds, **figures}, indent=1))


def _leave_one_out(dataset: "Dataset", training: "TrainingConfig", seeds: int, weight: float) -> dict[str, Any]:
    from engine.cli.progress import progress_bar
    from engine.evaluation.run import evaluate_leave_one_out

    with progress_bar() as progress:
        users, results = evaluate_leave_one_out(dataset, training, range(1, seeds + 1), weight, progress)
    _show_leave_one_out(users, seeds, results)
    return {"users": users, "methods": {result.method: asdict(result) for result in results}}


def _next_event(dataset: "Dataset", training: "TrainingConfig", seeds: int, serving: Path | None) -> dict[str, Any]:
    from engine.cli.progress import progress_bar
    from engine.config import EngineConfig
    from engine.evaluation.run_next_event import evaluate_next_event

    settings = EngineConfig.load(serving)
    with progress_bar() as progress:
        report = evaluate_next_event(dataset, training, settings, range(1, seeds + 1), progress)
    _show_next_event(seeds, report)
    figures = asdict(report)
    overall, in_session = figures.pop("overall"), figures.pop("in_session")
    return figures | {
        "methods": {
            name: {
                "method": name,
                **overall[name],
                "in_session": in_session[name],
                "seed_means": report.seed_means[name],
            }
            for name in overall
        }
    }


def _show_leave_one_out(users: int, seeds: int, results: "list[MethodResult]") -> None:
    title = f"{Protocol.LEAVE_ONE_OUT.value}, {users:,} users, mean over {seeds} seeds (± standard error)"
    headings = ("HR@10", "NDCG@10", "HR@50", "coverage@10", "similarity@10")
    rows = [
        (
            result.method,
            *_written(result.hr_at_10, result.ndcg_at_10, result.hr_at_50),
            f"{result.coverage_at_10:.3f}",
            f"{result.intra_list_similarity_at_10.mean:.3f}",
        )
        for result in results
    ]
    _print_table(title, headings, rows)


def _show_next_event(seeds: int, report: "NextEventReport") -> None:
    headings = ("HR@10", "NDCG@10", "HR@50", "HR@10 gain")
    name = f"{Protocol.NEXT_EVENT.value}, mean over {seeds} seeds (± standard error over users)"
    in_session = f"with a session under way: {report.in_session_events:,} events of {report.in_session_users:,} users"
    for title, methods in (
        (f"{name}: {report.events:,} events of {report.users:,} users", report.overall),
        (in_session, report.in_session),
    ):
        rows = [
            (method, *_written(part.hr_at_10, part.ndcg_at_10, part.hr_at_50, part.hr_at_10_gain))
            for method, part in methods.items()
        ]
        _print_table(title, headings, rows)


def _written(*estimates: "Estimate") -> list[str]:
    return [f"{estimate.mean:.4f} ± {estimate.standard_error:.4f}" for estimate in estimates]


def _print_table(title: str, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    table.add_column("method")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)
