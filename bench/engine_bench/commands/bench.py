"""`engine bench …`: measurements of the whole system, with the machine that they were made on beside each figure."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from engine.cli.needs import needs
from engine_bench.commands.report import report
from engine_bench.commands.taste import taste

app = typer.Typer(no_args_is_help=True)
app.command()(report)
app.command()(taste)

_JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures here, too.")]


@app.command()
@needs("cpu", "train")
def freshness(
    json_file: _JsonOption = None,
    events: Annotated[int, typer.Option(min=1, help="Clicks to time.")] = 1000,
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 50061,
) -> None:
    """Time from RecordEvents' answer until Recommend reflects the event, everything on this machine.

    REDIS_URL and KAFKA_BROKERS in the environment choose other servers than the embedded ones.
    """
    from engine.cli.progress import progress_bar
    from engine_bench.freshness import measure_freshness

    with progress_bar() as progress:
        result = measure_freshness(
            events, port, os.environ.get("REDIS_URL", ""), os.environ.get("KAFKA_BROKERS", ""), progress
        )
    _report(result, json_file)


@app.command()
@needs("cpu", "train")
def processor(
    json_file: _JsonOption = None,
    events: Annotated[int, typer.Option(min=1, help="Events to apply.")] = 1_000_000,
    users: Annotated[int, typer.Option(min=1, help="People who make them.")] = 100_000,
) -> None:
    """Events a second that one stream processor applies to a real Redis.

    REDIS_URL and KAFKA_BROKERS in the environment choose other servers than the embedded ones.
    """
    from engine.cli.progress import progress_bar
    from engine_bench.processor import measure_processor

    with progress_bar() as progress:
        result = measure_processor(
            events, users, os.environ.get("REDIS_URL", ""), os.environ.get("KAFKA_BROKERS", ""), progress
        )
    _report(result, json_file)


@app.command()
@needs("cpu", "train")
def inventory(
    json_file: _JsonOption = None,
    items: Annotated[int, typer.Option(min=1000, help="Size of the synthetic catalogue.")] = 100_000,
    fresh: Annotated[int, typer.Option(min=0, help="New items that are there from the start.")] = 1_000,
    port: Annotated[int, typer.Option(help="Port of the first of two servers.")] = 50071,
    cache: Annotated[Path, typer.Option(help="Keeps the synthetic bundle for the next time.")] = Path(".benchmarks"),
) -> None:
    """How soon a stock-out is gone from every answer of two replicas under load, and a new item can be in one."""
    from engine.cli.progress import progress_bar
    from engine_bench.inventory import measure_inventory

    with progress_bar() as progress:
        result = measure_inventory(items, fresh, port, cache, progress)
    _report(result, json_file)


@app.command()
@needs("cpu", "train")
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
    from engine.cli.progress import progress_bar
    from engine_bench.load import LoadSettings, measure_load

    settings = LoadSettings(
        items=items, users=users, seconds=seconds, repeats=repeats, arrivals=_checked_arrivals(arrivals)
    )
    with progress_bar() as progress:
        result = measure_load(settings, port, cache, progress)
    _report(result, json_file)


@app.command()
@needs("cpu", "train")
def peers(
    json_file: _JsonOption = None,
    items: Annotated[int, typer.Option(min=1000, help="Size of the synthetic catalogue.")] = 1_000_000,
    users: Annotated[int, typer.Option(min=128, help="People who ask.")] = 100_000,
    seconds: Annotated[float, typer.Option(min=1, help="Of one run of a search.")] = 10.0,
    repeats: Annotated[int, typer.Option(min=1, help="Runs that confirm a rate that was found.")] = 3,
    arrivals: Annotated[str, typer.Option(help="poisson or constant.")] = "poisson",
    skip: Annotated[list[str] | None, typer.Option(help="A peer to leave out; may be given several times.")] = None,
    port: Annotated[int, typer.Option(help="Port of the engine; mosec serves on the next one.")] = 50091,
    cache: Annotated[Path, typer.Option(help="Keeps bundle and indexes for the next time.")] = Path(".benchmarks"),
) -> None:
    """The engine beside a straightforward wiring and published libraries, stage by stage and as whole services.

    The peers are in the extra peers; one that is not installed is left out, and the report says so.
    """
    from engine.cli.progress import progress_bar
    from engine_bench.peers.optional import PEERS

    unknown = sorted(set(skip or ()) - set(PEERS))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(PEERS)}", param_hint="--skip")
    from engine_bench.peers.run import PeerBench, measure_peers

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


@app.command()
def experiments(
    json_file: _JsonOption = None,
    units: Annotated[int, typer.Option(min=1, help="People to assign.")] = 1_000_000,
) -> None:
    """How many people a second get their variants, and how exact the shares are."""
    from engine_bench.experiments import measure_experiments

    _report(measure_experiments(units), json_file)


@app.command()
@needs("analysis")
def coverage(
    json_file: _JsonOption = None,
    repetitions: Annotated[int, typer.Option(min=1, help="Experiments, with the same people dealt anew.")] = 200,
    users: Annotated[int, typer.Option(min=10, help="People of each.")] = 2_000,
    items: Annotated[int, typer.Option(min=100, help="Size of the synthetic catalogue.")] = 2_000,
    days: Annotated[int, typer.Option(min=1, help="Length of each, and of the time before that is known.")] = 14,
    share: Annotated[float, typer.Option(min=0.01, max=0.99, help="Of the people who get the engine.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same figures.")] = 1,
) -> None:
    """How often a report's 95% intervals hold the true lift, in simulated experiments of which it is known."""
    from engine.cli.progress import progress_bar
    from engine_bench.coverage import measure_coverage
    from engine_bench.simulation.coverage import CoverageSettings

    settings = CoverageSettings(
        repetitions=repetitions, users=users, items=items, days=days, before_days=days, share=share, seed=seed
    )
    with progress_bar() as progress:
        result = measure_coverage(settings, progress)
    _report(result, json_file)


@app.command()
@needs("cpu", "train")
def exposures(
    json_file: _JsonOption = None,
    items: Annotated[int, typer.Option(min=1000, help="Size of the synthetic catalogue.")] = 100_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of one run.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each kind, in turn.")] = 6,
    port: Annotated[int, typer.Option(help="Port of the first of three servers.")] = 50101,
    cache: Annotated[Path, typer.Option(help="Keeps the synthetic bundle for the next time.")] = Path(".benchmarks"),
) -> None:
    """What logging every answer costs one server, and what it costs while Kafka is away.

    KAFKA_BROKERS in the environment chooses another Kafka than the embedded one.
    """
    from engine.cli.progress import progress_bar
    from engine_bench.exposures import measure_exposures

    with progress_bar() as progress:
        result = measure_exposures(items, seconds, rounds, port, os.environ.get("KAFKA_BROKERS", ""), cache, progress)
    _report(result, json_file)


def _checked_arrivals(arrivals: str) -> Literal["poisson", "constant"]:
    if arrivals == "poisson":
        return "poisson"
    if arrivals == "constant":
        return "constant"
    raise typer.BadParameter("poisson or constant", param_hint="--arrivals")


@app.command()
@needs("cpu", "train")
def world(
    items: Annotated[int, typer.Option(min=1000, help="Size of the synthetic catalogue.")] = 1_000_000,
    cache: Annotated[Path, typer.Option(help="Where the bundle goes.")] = Path(".benchmarks"),
) -> None:
    """Make the synthetic bundle that the other measurements use, for a machine that cannot train."""
    from engine.cli.progress import progress_bar
    from engine_bench.gpu import make_world

    with progress_bar() as progress:
        _, _, bundle = make_world(items, cache, progress)
    print(bundle.path)


@app.command()
@needs("cpu", "train")
def gpu(
    json_file: _JsonOption = None,
    device: Annotated[str, typer.Option(help="cuda, or cpu for a rehearsal.")] = "cuda",
    cuda_device: Annotated[int, typer.Option(min=0, help="Which one, counted from 0.")] = 0,
    kinds: Annotated[list[str] | None, typer.Option(help="Of search, as the result names them; may repeat.")] = None,
    items: Annotated[list[int] | None, typer.Option(min=1000, help="Items to retrieve from; may repeat.")] = None,
    dims: Annotated[list[int] | None, typer.Option(min=8, help="Dimensions of their vectors; may repeat.")] = None,
    batches: Annotated[
        list[int] | None, typer.Option(min=1, help="Requests of one call, and callers at once; may repeat.")
    ] = None,
    request_items: Annotated[
        int | None, typer.Option(min=1000, help="Items of the bundle for whole requests; by default the least above.")
    ] = None,
    front_ends: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Processes before one device process; 0 leaves them out. May repeat."),
    ] = None,
    callers: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Who ask the front ends at once; by default the two largest of batches. May repeat."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Of one figure.")] = 3.0,
    cache: Annotated[Path, typer.Option(help="Holds the synthetic bundle.")] = Path(".benchmarks"),
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether there is a device that can be used.")
    ] = False,
) -> None:
    """Search, ranking and whole requests on a GPU: checked against the processor, then timed against its limits."""
    from engine.cli.progress import progress_bar
    from engine_bench.gpu import GpuSettings, measure_gpu, require_gpu

    if device not in ("cuda", "cpu"):
        raise typer.BadParameter("cuda or cpu", param_hint="--device")
    counts = tuple(items or (1_000_000, 10_000_000))
    sizes = tuple(sorted({1, *(batches or (4, 16, 32, 64))}))
    if len(sizes) < 2:
        raise typer.BadParameter("one above 1 is needed", param_hint="--batches")
    settings = GpuSettings(
        device="cpu" if device == "cpu" else "cuda",
        cuda_device=cuda_device,
        kinds=tuple(kinds or ()),
        items=counts,
        dims=tuple(dims or (64, 128)),
        batches=sizes,
        request_items=request_items or min(counts),
        front_ends=tuple(count for count in front_ends or _front_ends() if count),
        callers=tuple(callers or ()),
        seconds=seconds,
    )
    if settings.device == "cuda":
        name = require_gpu(settings)
        if check:
            print(name)
            return
    with progress_bar() as progress:
        result = measure_gpu(settings, cache, progress, partial(_save, json_file=json_file))
    _report(result, json_file)


def _front_ends() -> list[int]:
    """From one to three quarters of the cores: those who ask need the rest."""
    cores = os.cpu_count() or 1
    return sorted({max(1, cores * quarters // 8) for quarters in (1, 2, 4, 6)} | {1})


@app.command()
@needs("cpu", "train")
def startup(
    json_file: _JsonOption = None,
    items: Annotated[list[int] | None, typer.Option(min=1000, help="Catalogue size; may be given again.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Starts that are timed, after one that warms caches.")] = 5,
    port: Annotated[int, typer.Option(help="Port of the first of two servers.")] = 50096,
    cache: Annotated[Path, typer.Option(help="Keeps the synthetic bundles for the next time.")] = Path(".benchmarks"),
) -> None:
    """Seconds until `engine serve` says SERVING, and the memory that each serving process has to itself."""
    from engine.cli.progress import progress_bar
    from engine_bench.startup import measure_startup

    with progress_bar() as progress:
        result = measure_startup(items or [100_000, 1_000_000], repeats, port, cache, progress)
    _report(result, json_file)


@app.command()
@needs("cpu", "train")
def tail(
    json_file: _JsonOption = None,
    items: Annotated[int, typer.Option(min=1000, help="Size of the synthetic catalogue.")] = 100_000,
    rate: Annotated[float, typer.Option(min=1, help="Requests a second, evenly spaced.")] = 50.0,
    duration_s: Annotated[float, typer.Option(min=1, help="For so long, after ten seconds that do not count.")] = 300.0,
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 50111,
    cache: Annotated[Path, typer.Option(help="Keeps the synthetic bundle for the next time.")] = Path(".benchmarks"),
) -> None:
    """The slowest answers of one server, and every pause of it, while all goes on that a server does beside requests.

    Bundles are swapped, rules reloaded, stock and items changed, events recorded and reports made. Each pause has its
    cause, and whether the server made it or the machine.
    """
    from engine.cli.progress import progress_bar
    from engine_bench.tail import TailSettings, check_needs, measure_tail
    from engine_bench.tail_report import tail_lines

    check_needs(items, cache)
    settings = TailSettings(items=items, rate=rate, seconds=duration_s)
    with progress_bar() as progress:
        result = measure_tail(settings, port, cache, progress)
    for line in tail_lines(result):
        print(line)
    _save(result, json_file)


def _report(result: dict[str, Any], json_file: Path | None) -> None:
    print(json.dumps(result, indent=1))
    _save(result, json_file)


def _save(result: dict[str, Any], json_file: Path | None) -> None:
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1))
