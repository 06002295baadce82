"""`engine demo`: everything once, from data to recommendations, on this machine."""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.needs import needs


@needs("cpu", "train", "analysis")
def demo(
    data: Annotated[
        Path | None, typer.Option(help="MovieLens, Complete Journey or canonical tables; a synthetic world without it.")
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Train again although the bundle of an earlier run would do.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Stop at the end instead of serving on.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write recommendations and stage times here.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Where data, bundles and the private Redis are kept.")] = Path("var/demo"),
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 50051,
) -> None:
    """Import or synthesize data, train, publish, serve, then call the server as a client would.

    Ends with one HTML page of everything. Without --once it serves on, until Ctrl-C or SIGTERM.
    """
    from rich.console import Console

    from engine_bench.demo.run import Demo, run_demo

    work.mkdir(parents=True, exist_ok=True)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    # As Ctrl-C does: whatever was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    result = run_demo(Demo(data, work, once, port, train), console)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1, ensure_ascii=False))
