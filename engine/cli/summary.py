"""What a command prints of the tables that it wrote."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from engine.data.tables import Tables

_DATE = "%Y-%m-%d"


def print_summary(console: Console, tables: Tables, out_dir: Path, notes: tuple[str, ...] = ()) -> None:
    """Counts, period and events by type as a small table, then the notes."""
    events = tables.interactions
    span = events.select(
        first=pl.col("timestamp_ms").min(), last=pl.col("timestamp_ms").max(), users=pl.col("user_id").n_unique()
    ).row(0, named=True)
    summary = Table(show_header=False, box=None)
    summary.add_column(style="bold")
    summary.add_column(justify="right")
    summary.add_row("items", f"{tables.items.height:,}")
    summary.add_row("active users", f"{span['users']:,}")
    summary.add_row("interactions", f"{events.height:,}")
    for kind, count in events["event_type"].value_counts(sort=True).iter_rows():
        summary.add_row(f"  {kind}", f"{count:,}")
    summary.add_row("period (UTC)", f"{_day(span['first'])} to {_day(span['last'])}")
    console.print(summary)
    for note in notes:
        console.print(f"Note: {note}", highlight=False)
    console.print(f"Written to {out_dir}", highlight=False, soft_wrap=True)


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime(_DATE)
