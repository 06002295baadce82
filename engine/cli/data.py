"""`engine data check`: everything that is wrong with a data directory, and what is in it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.options import ServingConfigOption

if TYPE_CHECKING:
    from rich.console import Console

    from engine.data.faults import Fault
    from engine.data.profile import Profile

app = typer.Typer(no_args_is_help=True, help="Look at a data directory before a training run does.")

_MOST_DAYS = 10


@app.callback()
def data() -> None:
    """Look at a data directory before a training run does."""


@app.command()
def check(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Data directory: interactions, items, users.")],
    serving_config: ServingConfigOption = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all of it here, too; - for the output.")
    ] = None,
) -> None:
    """List every problem with its count and first rows, and what there is; exits with 1 when there are problems."""
    from rich.console import Console

    from engine.config.serving import EngineConfig
    from engine.data.inspect import inspect_directory
    from engine.data.profile import profile
    from engine.data.rules import TableRules

    rules = TableRules.of(EngineConfig.load(serving_config))
    found = inspect_directory(directory, rules)
    counted = profile(found, rules)
    report = json.dumps(
        {"directory": str(directory), "bad_rows": found.bad_rows,
         "problems": [asdict(fault) | {"text": str(fault)} for fault in found.faults], "profile": asdict(counted)},
        indent=1,
    )  # fmt: skip
    if json_file is not None and str(json_file) == "-":
        typer.echo(report)
    else:
        console = Console()
        show_profile(console, counted)
        show_faults(console, found.faults)
        if json_file is not None:
            json_file.write_text(report)
    raise typer.Exit(1 if found.faults else 0)


def show_faults(console: "Console", faults: "tuple[Fault, ...]") -> None:
    """One line a fault, with the first rows of those that are in several."""
    for fault in faults:
        rows = ", ".join(f"{one.row:,}" for one in fault.examples)
        more = f" ({fault.count:,} rows: {rows}{', …' if fault.count > len(fault.examples) else ''})"
        line = f"{fault}{more if fault.count > 1 else ''}"
        console.print(line, highlight=False, soft_wrap=True, markup=False, style="red")
    problems = f"{len(faults)} {'problem' if len(faults) == 1 else 'problems'}" if faults else "no problems"
    console.print(problems, highlight=False, style="bold")


def show_profile(console: "Console", counted: "Profile") -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(justify="right")
    logged = f", {counted.logged_events:,} of them archived" if counted.logged_events else ""
    table.add_row("events", f"{counted.events:,}{logged}")
    for name, count in counted.events_by_type.items():
        table.add_row(f"  {name}", f"{count:,}")
    table.add_row("users", f"{counted.users:,}, {counted.one_event_users:,} with one event")
    table.add_row("users in the table", f"{counted.users_in_table:,}")
    table.add_row("items", f"{counted.items:,}, {counted.untouched_items:,} without events")
    table.add_row("events of unknown items", f"{counted.unknown_item_share:.2%}")
    table.add_row("events without a surface", f"{counted.without_surface_share:.2%}")
    ahead = f"{counted.ahead_events:,}, by up to {counted.ahead_ms / 3_600_000:,.1f} h" if counted.ahead_events else "0"
    table.add_row("events ahead of now", ahead)
    days = list(counted.days.items())
    if days:
        table.add_row("days (UTC)", f"{len(days):,}, {days[0][0]} to {days[-1][0]}")
        for day, count in days[-_MOST_DAYS:]:
            table.add_row(f"  {day}", f"{count:,}")
    console.print(table)
