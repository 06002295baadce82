"""`engine simulate`: the users of a synthetic world use a server, so that its experiments have something to find."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer


def simulate(
    data: Annotated[Path, typer.Argument(help="Data directory that `engine synth` wrote, of the bundle that serves.")],
    target: Annotated[str, typer.Option(help="The server, host:port.")] = "localhost:50051",
    experiment: Annotated[str, typer.Option(help="Whose variants are told apart.")] = "holdout",
    surface: Annotated[str, typer.Option(help="Where they look.")] = "home",
    users: Annotated[int | None, typer.Option(min=1, help="How many of the world's users; all without it.")] = None,
    days: Annotated[int, typer.Option(min=1, max=5, help="Simulated days, ending with yesterday (UTC).")] = 5,
    visits: Annotated[float, typer.Option(min=0.01, max=5, help="Sessions a user and day, in the mean.")] = 0.5,
    speed: Annotated[
        float, typer.Option(min=0, help="Simulated seconds a second; 0: as fast as the server answers.")
    ] = 0.0,
    position_bias: Annotated[
        float, typer.Option(min=0, max=3, help="A position k is looked at with 1 / k ** this; 0: all of them.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of everybody's choices.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Sessions at a time.")] = 8,
    truth_target: Annotated[
        str,
        typer.Option(help="A second server on the same state, with exposures.enabled = false: tells the true lift."),
    ] = "",
    variants: Annotated[str, typer.Option(help="Control and treatment, for the truth.")] = "baseline,engine",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the summary here, too.")] = None,
) -> None:
    """Ask for slates, click by taste, buy, come back on other days, and record all of it as a client would.

    Moments are simulated: `engine experiment report NAME --clock request` counts by them.
    """
    from engine.cli.progress import progress_bar
    from engine_bench.simulation.behaviour import Behaviour
    from engine_bench.simulation.run import RunSettings
    from engine_bench.simulation.run import simulate as play
    from engine_bench.synthetic.tables import world_of

    two = tuple(name.strip() for name in variants.split(","))
    if len(two) != 2 or not all(two):
        raise typer.BadParameter("must be two, like baseline,engine", param_hint="--variants")
    settings = RunSettings(
        target=target, experiment=experiment, surface=surface, users=users, days=days, visits_per_day=visits,
        speed=speed, seed=seed, concurrency=concurrency, truth_target=truth_target, variants=(two[0], two[1]),
    )  # fmt: skip
    with progress_bar() as progress:
        result = asyncio.run(play(world_of(data), settings, Behaviour(position_bias=position_bias), progress))
    _show(result)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1))


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=120, highlight=False)
    table = Table(title=f"{result['settings']['experiment']} on {result['settings']['surface']}, run {result['run']}")
    table.add_column("variant")
    for heading in ("users", "sessions", "requests", "with a click", "expected", "clicks", "purchases", "revenue"):
        table.add_column(heading, justify="right")
    for name, earned in result["variants"].items():
        table.add_row(
            name,
            *(f"{earned[key]:,}" for key in ("users", "sessions", "requests")),
            *(f"{earned[key]:.1%}" for key in ("request_ctr", "expected_request_ctr")),
            *(f"{earned[key]:,}" for key in ("clicks", "purchases", "revenue")),
        )
    console.print(table)
    if result["truth"] is not None:
        console.print(f"True lift of requests with a click: {result['truth']['request_ctr']:+.1%}")
    for reason, count in result["errors"].items():
        console.print(f"{count:,} sessions ended without an answer: {reason}")
    name = result["settings"]["experiment"]
    console.print(f"Once it is archived: engine experiment report {name!r} --archive DIR --clock request")
