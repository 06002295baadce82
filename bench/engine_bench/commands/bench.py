"""`engine bench …`: measurements of the whole system, with the machine that they were made on beside each figure."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.needs import needs
from engine_bench.commands.gpu import gpu, world
from engine_bench.commands.options import Arrivals, Cache, Items, JsonFile, Port, Repeats, measured, servers
from engine_bench.commands.report import report
from engine_bench.commands.taste import taste

app = typer.Typer(no_args_is_help=True)
for command in (report, taste, world, gpu):
    app.command()(command)


@app.command()
@needs("cpu", "train")
def freshness(
    json_file: JsonFile = None,
    events: Annotated[int, typer.Option(min=1, help="Clicks to time.")] = 1000,
    port: Port = 50061,
) -> None:
    """Time from RecordEvents' answer until Recommend reflects the event, everything on this machine.

    REDIS_URL and KAFKA_BROKERS in the environment choose other servers than the embedded ones.
    """
    from engine_bench.freshness import measure_freshness

    measured(json_file, partial(measure_freshness, events, port, *servers()))


@app.command()
@needs("cpu", "train")
def processor(
    json_file: JsonFile = None,
    events: Annotated[int, typer.Option(min=1, help="Events to apply.")] = 1_000_000,
    users: Annotated[int, typer.Option(min=1, help="Users who make them.")] = 100_000,
) -> None:
    """Events a second that one stream processor applies to a real Redis.

    REDIS_URL and KAFKA_BROKERS in the environment choose other servers than the embedded ones.
    """
    from engine_bench.processor import measure_processor

    measured(json_file, partial(measure_processor, events, users, *servers()))


@app.command()
@needs("cpu", "train")
def inventory(
    json_file: JsonFile = None,
    items: Items = 100_000,
    new_items: Annotated[int, typer.Option("--fresh", min=0, help="New items that are there from the start.")] = 1_000,
    port: Annotated[int, typer.Option(help="Port of the first of two servers.")] = 50071,
    cache: Cache = Path(".benchmarks"),
) -> None:
    """How soon a stock-out is gone from every answer of two replicas under load, and a new item can be in one."""
    from engine_bench.inventory import measure_inventory

    measured(json_file, partial(measure_inventory, items, new_items, port, cache))


@app.command()
@needs("cpu", "train")
def load(
    json_file: JsonFile = None,
    items: Items = 1_000_000,
    users: Annotated[int, typer.Option(min=1, help="Users who ask.")] = 100_000,
    seconds: Annotated[float, typer.Option(min=1, help="Of one run of the search.")] = 10.0,
    repeats: Repeats = 3,
    arrivals: Arrivals = "poisson",
    port: Port = 50081,
    cache: Cache = Path(".benchmarks"),
) -> None:
    """The highest rate of requests that one server answers in time, open loop, and its latencies without load."""
    from engine_bench.load import LoadSettings, measure_load

    settings = LoadSettings(items=items, users=users, seconds=seconds, repeats=repeats, arrivals=arrivals)
    measured(json_file, partial(measure_load, settings, port, cache))


@app.command()
@needs("cpu", "train")
def overload(
    json_file: JsonFile = None,
    items: Items = 100_000,
    workers: Annotated[list[int] | None, typer.Option(min=1, help="Counts of workers; 1 and 2 without.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Of one run.")] = 15.0,
    port: Port = 50121,
    cache: Cache = Path(".benchmarks"),
) -> None:
    """What a server makes of 1, 2, 4 and 10 times the requests that it can answer, beside one with a static limit."""
    from engine_bench.overload import OverloadSettings, measure_overload

    settings = OverloadSettings(items=items, workers=tuple(workers or (1, 2)), seconds=seconds)
    measured(json_file, partial(measure_overload, settings, port, cache))


@app.command()
@needs("cpu", "train")
def peers(
    json_file: JsonFile = None,
    items: Items = 1_000_000,
    users: Annotated[int, typer.Option(min=128, help="Users who ask.")] = 100_000,
    seconds: Annotated[float, typer.Option(min=1, help="Of one run of a search.")] = 10.0,
    repeats: Repeats = 3,
    arrivals: Arrivals = "poisson",
    skip: Annotated[list[str] | None, typer.Option(help="A peer to leave out; may be given several times.")] = None,
    port: Annotated[int, typer.Option(help="Port of the engine; mosec serves on the next one.")] = 50091,
    cache: Cache = Path(".benchmarks"),
) -> None:
    """The engine beside a straightforward wiring and published libraries, stage by stage and as whole services.

    The peers are in the extra peers; one that is not installed is left out, and the report says so.
    """
    from engine_bench.peers.settings import PEERS

    unknown = sorted(set(skip or ()) - set(PEERS))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(PEERS)}", param_hint="--skip")
    from engine_bench.peers.run import PeerBench, measure_peers

    settings = PeerBench(
        items=items,
        users=users,
        seconds=seconds,
        repeats=repeats,
        arrivals=arrivals,
        skip=tuple(skip or ()),
    )
    measured(json_file, partial(measure_peers, settings, port, cache))


@app.command()
def experiments(
    json_file: JsonFile = None,
    units: Annotated[int, typer.Option(min=1, help="Users to assign.")] = 1_000_000,
) -> None:
    """How many users a second get their variants, and how exact the shares are."""
    from engine_bench.experiments import measure_experiments

    measured(json_file, lambda _: measure_experiments(units))


@app.command()
@needs("analysis")
def coverage(
    json_file: JsonFile = None,
    repetitions: Annotated[int, typer.Option(min=1, help="Experiments, with the same users dealt again.")] = 200,
    users: Annotated[int, typer.Option(min=10, help="Users of each.")] = 2_000,
    items: Annotated[int, typer.Option(min=100, help="Size of the synthetic catalogue.")] = 2_000,
    days: Annotated[int, typer.Option(min=1, help="Length of each, and of the time before that is known.")] = 14,
    share: Annotated[float, typer.Option(min=0.01, max=0.99, help="Of the users who get the engine.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same figures.")] = 1,
) -> None:
    """How often a report's 95% intervals hold the true lift, in simulated experiments of which it is known."""
    from engine_bench.simulation.behaviour import Behaviour
    from engine_bench.simulation.coverage import CoverageSettings, measure_coverage

    settings = CoverageSettings(
        repetitions=repetitions, users=users, items=items, days=days, before_days=days, share=share, seed=seed
    )
    measured(json_file, partial(measure_coverage, settings, Behaviour()))


@app.command()
@needs("cpu", "train")
def exposures(
    json_file: JsonFile = None,
    items: Items = 100_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of one run.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each kind, in turn.")] = 6,
    port: Annotated[int, typer.Option(help="Port of the first of three servers.")] = 50101,
    cache: Cache = Path(".benchmarks"),
) -> None:
    """What logging every answer costs one server, and what it costs while Kafka is away.

    KAFKA_BROKERS in the environment chooses another Kafka than the embedded one.
    """
    from engine_bench.exposures import measure_exposures

    measured(json_file, partial(measure_exposures, items, seconds, rounds, port, servers()[1], cache))


@app.command()
@needs("cpu", "train")
def startup(
    json_file: JsonFile = None,
    items: Annotated[list[int] | None, typer.Option(min=1000, help="Catalogue size; may be given again.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Starts that are timed, after one that warms caches.")] = 5,
    port: Annotated[int, typer.Option(help="Port of the first of two servers.")] = 50096,
    cache: Cache = Path(".benchmarks"),
) -> None:
    """Seconds until `engine serve` says SERVING, and the memory that each serving process has to itself."""
    from engine_bench.startup import measure_startup

    measured(json_file, partial(measure_startup, items or [100_000, 1_000_000], repeats, port, cache))


@app.command()
@needs("cpu", "train")
def tail(
    json_file: JsonFile = None,
    items: Items = 100_000,
    rate: Annotated[float, typer.Option(min=1, help="Requests a second, evenly spaced.")] = 50.0,
    duration_s: Annotated[float, typer.Option(min=1, help="For so long, after ten seconds that do not count.")] = 300.0,
    port: Port = 50111,
    cache: Cache = Path(".benchmarks"),
) -> None:
    """The slowest answers of one server, and every pause of it, while all goes on that a server does beside requests.

    Bundles are swapped, rules reloaded, stock and items changed, events recorded and reports made. Each pause has its
    cause, and whether the server made it or the machine.
    """
    from engine_bench.tail import TailSettings, check_needs, measure_tail
    from engine_bench.tail_report import tail_lines

    check_needs(items, cache)
    settings = TailSettings(items=items, rate=rate, seconds=duration_s)
    measured(
        json_file, partial(measure_tail, settings, port, cache), lambda result: print(*tail_lines(result), sep="\n")
    )
