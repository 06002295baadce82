"""`engine rules`: look at a file of business rules before a server does."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.options import ConfigOption, load_config

app = typer.Typer(no_args_is_help=True)


@app.callback()
def rules() -> None:
    """A group, so that the command keeps its name while it is the only one."""


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="YAML file with the rules.")],
    surfaces: Annotated[
        str | None, typer.Option(help="Known surfaces, separated by commas; those of the settings without it.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle, or a directory of them: hold the rules against its items, too.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Say whether a server would take the file, and if not, the line and the reason."""
    from engine.bundle.items import read_items
    from engine.bundle.store import bundle_at
    from engine.rules.conflicts import check_catalogue
    from engine.rules.load import load_rules

    known = load_config(config).surfaces if surfaces is None else [name.strip() for name in surfaces.split(",")]
    loaded = load_rules(file, tuple(name for name in known if name))
    if bundle is not None:
        for doubt in check_catalogue(loaded, read_items(bundle_at(bundle)).frame()):
            print(f"{file}: {doubt}", file=sys.stderr)
    print(f"ok: {len(loaded)} rule{'' if len(loaded) == 1 else 's'}")
