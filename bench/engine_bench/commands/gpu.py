"""`engine bench gpu`, and `engine bench world`, which makes the bundle for a GPU's machine."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from engine.cli.needs import needs
from engine_bench.commands.options import Cache, Items, JsonFile, measured, save


@needs("cpu", "train")
def world(
    items: Items = 1_000_000,
    cache: Cache = Path(".benchmarks"),
) -> None:
    """Make the synthetic bundle that the other measurements use, for a machine that cannot train."""
    from engine_bench.gpu import make_world

    measured(
        None,
        lambda progress: {"path": str(make_world(items, cache, progress)[2].path)},
        lambda made: print(made["path"]),
    )


@needs("cpu", "train")
def gpu(
    json_file: JsonFile = None,
    device: Annotated[Literal["cuda", "cpu"], typer.Option(help="cpu is a rehearsal.")] = "cuda",
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
    cache: Cache = Path(".benchmarks"),
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether there is a device that can be used.")
    ] = False,
) -> None:
    """Search, ranking and whole requests on a GPU: checked against the processor, then timed against its limits."""
    from engine_bench.gpu import GpuSettings, measure_gpu, require_gpu

    counts = tuple(items or (1_000_000, 10_000_000))
    sizes = tuple(sorted({1, *(batches or (4, 16, 32, 64))}))
    if len(sizes) < 2:
        raise typer.BadParameter("one above 1 is needed", param_hint="--batches")
    settings = GpuSettings(
        device=device,
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
    keep = partial(save, json_file)
    measured(json_file, lambda progress: measure_gpu(settings, cache, progress, keep))


def _front_ends() -> list[int]:
    """From one to three quarters of the cores: those who ask need the rest."""
    cores = os.cpu_count() or 1
    return sorted({max(1, cores * quarters // 8) for quarters in (1, 2, 4, 6)} | {1})
