"""`engine bundles`: which bundles there are, bringing one in from elsewhere, and choosing the one that serves."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from engine.bundle.manifest import MANIFEST, read_manifest
from engine.bundle.store import BundleStore
from engine.cli.options import BundlesOption, ConfigOption, load_config
from engine.errors import BundleError

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_bundles(config: ConfigOption = None, bundles: BundlesOption = None) -> None:
    """Every bundle, the newest first; a star marks the one that serves."""
    store = BundleStore(load_config(config, bundles).bundle.directory)
    try:
        current = store.current().name
    except BundleError:
        current = ""
    for path in store.versions():
        manifest = read_manifest(path)
        made = datetime.fromtimestamp(manifest.created_ms / 1000, UTC)
        star = "*" if path.name == current else " "
        print(f"{star} {path.name}  made {made:%Y-%m-%d %H:%M} UTC, {manifest.item_count:,} items")


@app.command()
def use(
    version: Annotated[str, typer.Argument(help="As `engine bundles list` names it.")],
    config: ConfigOption = None,
    bundles: BundlesOption = None,
) -> None:
    """Verify a bundle and have it served: every server that follows this directory swaps it in."""
    store = BundleStore(load_config(config, bundles).bundle.directory)
    _use(store, store.directory / version)


@app.command()
def add(
    source: Annotated[Path, typer.Argument(help="A bundle, or a directory of them: its current one.")],
    config: ConfigOption = None,
    bundles: BundlesOption = None,
    keep: Annotated[
        int | None, typer.Option(min=2, help="Delete all but so many of the newest afterwards; none without it.")
    ] = None,
) -> None:
    """Copy a bundle in, verify it, and have it served.

    Trained into another directory and published from there, it serves nobody without their records.
    """
    store = BundleStore(load_config(config, bundles).bundle.directory)
    path = source if (source / MANIFEST).is_file() else BundleStore(source).current()
    _use(store, store.add(path))
    for old in store.drop_old(keep) if keep is not None else ():
        print(f"{old.name} is deleted")


def _use(store: BundleStore, path: Path) -> None:
    # Heavy, and only to see that all its files fit each other.
    from engine.bundle.bundle import open_bundle

    open_bundle(path)
    store.point_to(path.name)
    print(f"{path.name} is current in {store.directory}")
