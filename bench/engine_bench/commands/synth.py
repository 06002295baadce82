"""`engine synth`: a seeded synthetic world as canonical tables."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from engine.cli.progress import progress_bar
from engine.cli.summary import print_summary
from engine_bench.synthetic.tables import EVENTS_PER_USER, synthesize
from engine_bench.synthetic.world import WorldSize


def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Directory to write the tables to.")],
    items: Annotated[int, typer.Option(min=1, help="Items in the catalogue.")] = 10_000,
    users: Annotated[int, typer.Option(min=1, help="Users; some of them stay without events.")] = 2_000,
    events: Annotated[
        int | None, typer.Option(min=1, help=f"Events, about; {EVENTS_PER_USER} for each user by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and sizes make the same world.")] = 1,
    days: Annotated[int, typer.Option(min=1, help="Length of the observed period.")] = 60,
    until: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="End of the observed period, midnight UTC.")
    ] = datetime(2026, 1, 1),
) -> None:
    """Make a synthetic world with tastes, drifting sessions, prices, stock and new items; no truth is written."""
    end_ms = int(until.replace(tzinfo=UTC).timestamp()) * 1000
    size = WorldSize(items=items, users=users, days=days, end_ms=end_ms)
    total = events or EVENTS_PER_USER * users
    with progress_bar() as report:
        tables = synthesize(out, size, total, seed, lambda done: report(min(done, total), total, "simulating events"))
    print_summary(Console(), tables, out)
