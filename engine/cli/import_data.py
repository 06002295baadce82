"""`engine import`: foreign files into canonical tables."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from engine.cli.data import show_faults
from engine.cli.options import ServingConfigOption, SkipBadRowsOption
from engine.cli.summary import print_summary
from engine.config.serving import EngineConfig
from engine.data.import_csv import ImportRefused, import_csv
from engine.data.mapping import Mapping
from engine.data.rules import TableRules

app = typer.Typer(no_args_is_help=True, help="Convert an export or a public data set into canonical tables.")

_Out = Annotated[Path, typer.Argument(metavar="OUT", help="Directory to write the tables to.")]


@app.command("csv")
def csv_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="CSV files, packed with gzip or not.")],
    out: _Out,
    mapping: Annotated[Path, typer.Option("--map", help="TOML file that says what the columns mean.")],
    serving_config: ServingConfigOption = None,
    skip_bad_rows: SkipBadRowsOption = 0,
) -> None:
    """Your own export: CSV files and a mapping of their columns (docs/your-data.md)."""
    rules = TableRules.of(EngineConfig.load(serving_config), skip_bad_rows)
    console = Console()
    try:
        imported = import_csv(files, out, Mapping.load(mapping), rules)
    except ImportRefused as refusal:
        show_faults(console, refusal.faults)
        raise
    print_summary(console, imported.tables, out, imported.notes)
