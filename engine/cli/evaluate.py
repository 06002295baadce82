"""`engine evaluate`: how good the recommendations are, offline, with standard errors."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.needs import needs
from engine.cli.options import ServingConfigOption, SkipBadRowsOption

if TYPE_CHECKING:
    from engine.config.seen import SeenConfig
    from engine.config.serving import EngineConfig
    from engine.data.dataset import Dataset
    from engine.evaluation.run import MethodResult
    from engine.training.config import TrainingConfig

DEFAULT_WEIGHTS = "0,0.1"
PLOTTED_WEIGHTS = "0,0.05,0.1,0.2,0.4"


class Protocol(StrEnum):
    LEAVE_ONE_OUT = "leave-one-out"
    NEXT_EVENT = "next-event"
    NEW_ITEMS = "new-items"
    NEW_USERS = "new-users"


class Seen(StrEnum):
    POLICY = "policy"
    NEVER_AGAIN = "never-again"


@needs("cpu", "train")
def evaluate(
    data: Annotated[Path, typer.Argument(help="Data directory: interactions, items, users.")],
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="leave-one-out: each user's last event, every method through serving. next-event: each user's last "
            "events replayed one by one, with hourly and with nearline vectors. new-items: items that training "
            "never saw, by content and by their first interactions. new-users: users of whom only demographics are "
            "known."
        ),
    ] = Protocol.LEAVE_ONE_OUT,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Train this many times, with seeds 1, 2, …")] = 3,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with the training settings.")] = None,
    serving_config: ServingConfigOption = None,
    skip_bad_rows: SkipBadRowsOption = 0,
    seen: Annotated[
        Seen,
        typer.Option(
            help="For leave-one-out and next-event, what somebody has met before. policy: as [seen] of the serving "
            "settings has it. never-again: it is neither offered nor asked for."
        ),
    ] = Seen.POLICY,
    mmr_weights: Annotated[
        str | None,
        typer.Option(
            help="For leave-one-out: diversity weights in [0, 1] that the pipeline is asked with, separated by "
            f"commas. [default: {DEFAULT_WEIGHTS}; with --plot {PLOTTED_WEIGHTS}]"
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="For leave-one-out: write similarity against NDCG@10 by weight here, as PNG.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here, too.")] = None,
) -> None:
    """Hide a part of the data from training, then look for it in unsampled top-k lists of every method."""
    from engine.config.serving import EngineConfig
    from engine.data.build import load_dataset
    from engine.data.rules import TableRules
    from engine.training.config import TrainingConfig

    weights = _weights(mmr_weights or (DEFAULT_WEIGHTS if plot is None else PLOTTED_WEIGHTS))
    if protocol is not Protocol.LEAVE_ONE_OUT and (plot is not None or mmr_weights is not None):
        raise typer.BadParameter("--mmr-weights and --plot belong to the protocol leave-one-out")
    serving = EngineConfig.load(serving_config)
    policy = serving.seen if seen is Seen.POLICY else None
    dataset = load_dataset(data, rules=TableRules.of(serving, skip_bad_rows))
    training = TrainingConfig.load(config).model_copy(update={"seen": serving.seen})
    match protocol:
        case Protocol.LEAVE_ONE_OUT:
            figures = _leave_one_out(dataset, training, seeds, weights, plot, policy)
        case Protocol.NEXT_EVENT:
            figures = _next_event(dataset, training, seeds, serving, policy)
        case Protocol.NEW_ITEMS:
            figures = _new_items(dataset, training, seeds)
        case Protocol.NEW_USERS:
            figures = _new_users(dataset, seeds)
    if json_file is not None:
        json_file.write_text(
            json.dumps({"protocol": protocol.value, "seen": seen.value, "seeds": seeds, **figures}, indent=1)
        )


def _weights(written: str) -> list[float]:
    try:
        weights = [float(part) for part in written.split(",")]
    except ValueError:
        raise typer.BadParameter(f"not numbers separated by commas: {written}", param_hint="--mmr-weights") from None
    if not all(0.0 <= weight <= 1.0 for weight in weights):
        raise typer.BadParameter(f"not in [0, 1]: {written}", param_hint="--mmr-weights")
    return list(dict.fromkeys(weights))


def _leave_one_out(
    dataset: "Dataset",
    training: "TrainingConfig",
    seeds: int,
    weights: list[float],
    plot: Path | None,
    policy: "SeenConfig | None",
) -> dict[str, Any]:
    from engine.cli.evaluation_tables import show_leave_one_out
    from engine.cli.progress import progress_bar
    from engine.evaluation.run import evaluate_leave_one_out

    with progress_bar() as progress:
        users, results = evaluate_leave_one_out(dataset, training, range(1, seeds + 1), weights, progress, policy)
    show_leave_one_out(users, seeds, results)
    methods = {result.method: result for result in results}
    if plot is not None:
        _plot(methods, weights, f"{users:,} users, mean over {seeds} seeds", plot)
    return {"users": users, "methods": {name: asdict(result) for name, result in methods.items()}}


def _plot(methods: "dict[str, MethodResult]", weights: list[float], title: str, path: Path) -> None:
    from engine.evaluation.leave_one_out import pipeline_name
    from engine.evaluation.plot import TradeOff, plot_trade_off

    by_weight = [(weight, methods[pipeline_name(weight)]) for weight in weights]
    points = [
        TradeOff(weight, result.intra_list_similarity_at_10, result.intra_list_similarity_at_50, result.ndcg_at_10)
        for weight, result in by_weight
    ]
    plot_trade_off(points, title, path)


def _next_event(
    dataset: "Dataset",
    training: "TrainingConfig",
    seeds: int,
    serving: "EngineConfig",
    policy: "SeenConfig | None",
) -> dict[str, Any]:
    from engine.cli.evaluation_tables import show_next_event
    from engine.cli.progress import progress_bar
    from engine.evaluation.run_next_event import evaluate_next_event

    with progress_bar() as progress:
        report = evaluate_next_event(dataset, training, serving, range(1, seeds + 1), progress, policy)
    show_next_event(seeds, report)
    figures = asdict(report)
    overall, in_session, seed_means = (figures.pop(name) for name in ("overall", "in_session", "seed_means"))
    return figures | {
        "methods": {
            name: {
                "method": name,
                **overall[name],
                "in_session": in_session[name],
                "seed_means": seed_means[name],
            }
            for name in overall
        }
    }


def _new_items(dataset: "Dataset", training: "TrainingConfig", seeds: int) -> dict[str, Any]:
    from engine.cli.evaluation_tables import show_new_items
    from engine.cli.progress import progress_bar
    from engine.evaluation.run_new_items import evaluate_new_items

    with progress_bar() as progress:
        report = evaluate_new_items(dataset, training, range(1, seeds + 1), progress)
    show_new_items(seeds, report)
    figures = asdict(report)
    seed_means = figures.pop("seed_means")
    for name, method in figures["methods"].items():
        method |= {"method": name, "seed_means": seed_means[name]}
    return figures


def _new_users(dataset: "Dataset", seeds: int) -> dict[str, Any]:
    from engine.cli.evaluation_tables import show_new_users
    from engine.evaluation.new_users import evaluate_new_users

    report = evaluate_new_users(dataset, range(1, seeds + 1))
    show_new_users(seeds, report)
    return asdict(report)
