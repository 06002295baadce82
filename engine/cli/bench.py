"""`engine bench …`: measurements of the whole system, with the machine that they were made on beside each figure."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from engine.cli.bench_report import report

app = typer.Typer(no_args_is_help=True)
app.command()(report)

_JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures here, too.")]


@app.command()
def freshness(
    json_file: _JsonOption = None,
    events: Annotated[int, typer.Option(min=1, help="Clicks to time.")] = 1000,
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 50061,
) -> None:
    """Time from RecordEvents' answer until Recommend reflects the event, everything on this machine.

    REDIS_URL and KAFKA_BROKERS in the environment choose other servers than the embedded ones.
    """
    from engine.bench.freshness import measure_freshness
    from engine.cli.progress import progress_bar

    with progress_bar() as progress:
        result = measure_freshness(
            events, port, os.environ.get("REDIS_URL", ""), os.environ.get("KAFKA_BROKERS", ""), progress
        )
    _report(result, json_file)


@app.command()
def processor(
    json_file: _JsonOption = None,
    events: Annotated[int, typer.Option(min=1, help="Events to apply.")] = 1_000_000,
    users: Annotated[int, typer.Option(min=1, help="People who make them.")] = 100_000,
) -> None:
    """Events a second that one stream processor applies to a real Redis.

    REDIS_URL and KAFKA_BROKERS in the environment choose other servers than the embedded ones.
    """
    from engine.bench.processor import measure_processor
    from engine.cli.progress import progress_bar

    with progress_bar() as progress:
        result = measure_processor(
            events, users, os.environ.get("REDIS_URL", ""), os.environ.get("KAFKA_BROKERS", ""), progress
        )
    _report(result, json_file)


@app.command()
def inventory(
    json_file: _JsonOption = None,
    items: Annotated[int, typer.Option(min=1000, help="Size of the synthetic catalogue.")] = 100_000,
    fresh: Annotated[int, typer.Option(min=0, help="New items that are there from the start.")] = 1_000,
    port: Annotated[int, typer.Option(help="Port of the first of two servers.")] = 50071,
    cache: Annotated[Path, typer.Option(help="Keeps the synthetic bundle for the next time.")] = Path(".benchmarks"),
) -> None:
    """How soon a stock-out is gone from every answer of two replicas under load, and a new item can be in one."""
    from engine.bench.inventory import measure_inventory
    from engine.cli.progress import progress_bar

    with progress_bar() as progress:
        result = measure_inventory(items, fresh, port, cache, progress)
    _report(result, json_file)


@app.command()
def load(
    json_file: _JsonOption = None,
    items: Annotated[int, typer.Option(min=1000, help="Size of the synthetic catalogue.")] = 1_000_000,
    users: Annotated[int, typer.Option(min=1, help="People who ask.")] = 100_000,
    seconds: Annotated[float, typer.Option(min=1, help="Of one run of the search.")] = 10.0,
    repeats: Annotated[int, typer.Option(min=1, help="Runs that confirm a rate that was found.")] = 3,
    arrivals: Annotated[str, typer.Option(help="poisson or constant.")] = "poisson",
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 50081,
    cache: Annotated[Path, typer.Option(help="Keeps the synthetic bundle for the next time.")] = Path(".benchmarks"),
) -> None:
    """The highest rate of requests that one server answers in time, open loop, and its latencies without load."""
    from engine.bench.load import LoadSettings, measure_load
    from engine.cli.progress import progress_bar

    settings = LoadSettings(
        items=items, users=users, seconds=seconds, repeats=repeats, arrivals=_checked_arrivals(arrivals)
    )
    with progress_bar() as progress:
        result = measure_load(settings, port, cache, progress)
    _report(result, json_file)


@app.command()
def peers(
    json_file: _JsonOption = None,
    items: Annotated[int, typer.Option(min=1000, help="Size of the synthetic catalogue.")] = 1_000_000,
    users: Annotated[int, typer.Option(min=128, help="People who ask.")] = 100_000,
    seconds: Annotated[float, typer.Option(min=1, help="Of one run of a search.")] = 10.0,
    repeats: Annotated[int, typer.Option(min=1, help="Runs that confirm a rate that was found.")] = 3,
    arrivals: Annotated[str, typer.Option(help="poisson or constant.")] = "poisson",
    skip: Annotated[list[str] | None, typer.Option(help="A peer to leave out; may be given several times.")] = None,
    port: Annotated[int, typer.Option(help="Port of the first service; two more are behind it.")] = 50091,
    cache: Annotated[Path, typer.Option(help="Keeps bundle and indexes for the next time.")] = Path(".benchmarks"),
) -> None:
    """The engine beside a straightforward wiring and published libraries, stage by stage and as whole services.

    The peers are in the extra peers; one that is not installed is left out, and the report says so.
    """
    from engine.bench.peers.optional import PEERS
    from engine.cli.progress import progress_bar

    unknown = sorted(set(skip or ()) - set(PEERS))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(PEERS)}", param_hint="--skip")
    from engine.bench.peers.run import PeerBench, measure_peers

    settings = PeerBench(
        items=items,
        users=users,
        seconds=seconds,
        repeats=repeats,
        arrivals=_checked_arrivals(arrivals),
        skip=tuple(skip or ()),
    )
    with progress_bar() as progress:
        result = measure_peers(settings, port, cache, progress)
    _report(result, json_file)


def _checked_arrivals(arrivals: str) -> Literal["poisson", "constant"]:
    if arrivals == "poisson":
        return "poisson"
    if arrivals == "constant":
        return "constant"
    raise typer.BadParameter("poisson or constant", param_hint="--arrivals")


@app.command()
def startup(
    json_file: _JsonOption = None,
    items: Annotated[list[int] | None, typer.Option(min=1000, help="Catalogue size; may be given again.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Starts that are timed, after one that warms caches.")] = 5,
    port: Annotated[int, typer.Option(help="Port of the first of two servers.")] = 50096,
    cache: Annotated[Path, typer.Option(help="Keeps the synthetic bundles for the next time.")] = Path(".benchmarks"),
) -> None:
    """Seconds until `engine serve` says SERVING, and the memory that each serving process has to itself."""
    from engine.bench.startup import measure_startup
    from engine.cli.progress import progress_bar

    with progress_bar() as progress:
        result = measure_startup(items or [100_000, 1_000_000], repeats, port, cache, progress)
    _report(result, json_file)


def _report(result: dict[str, Any], json_file: Path | None) -> None:
    text = json.dumps(result, indent=1)
    print(text)
    if json_file is not None:
        json_file.write_text(text)
