"""What the commands of `engine bench` share: options, and how a measurement is run, shown and kept."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from engine_bench.machine import Progress

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures here, too.")]
Cache = Annotated[Path, typer.Option(help="Keeps synthetic bundles and what is made of them for the next time.")]
Items = Annotated[int, typer.Option(min=1000, help="Size of the synthetic catalogue.")]
Port = Annotated[int, typer.Option(help="Port to serve on.")]
Repeats = Annotated[int, typer.Option(min=1, help="Runs that confirm a rate that was found.")]
Arrivals = Annotated[Literal["poisson", "constant"], typer.Option(help="When requests are sent.")]


def servers() -> tuple[str, str]:
    """The operator's own Redis and Kafka, from the environment; empty for embedded ones."""
    return os.environ.get("REDIS_URL", ""), os.environ.get("KAFKA_BROKERS", "")


def measured(
    json_file: Path | None,
    measure: Callable[[Progress], dict[str, Any]],
    show: Callable[[dict[str, Any]], None] = lambda result: print(json.dumps(result, indent=1)),
) -> None:
    """Measure with a progress bar, show the result, and write it where it is wanted."""
    from engine.cli.progress import progress_bar

    with progress_bar() as progress:
        result = measure(progress)
    show(result)
    save(json_file, result)


def save(json_file: Path | None, result: dict[str, Any]) -> None:
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1))
