"""`engine bundles`: list the bundles, copy one in, and choose the one that serves."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from engine.bundle.manifest import read_manifest
from engine.bundle.store import BundleStore, bundle_at
from engine.cli.needs import needs
from engine.cli.options import BundlesOption, ConfigOption, load_config
from engine.errors import BundleError

app = typer.Typer(no_args_is_help=True)

ForceOption = Annotated[
    bool, typer.Option("--force", help="Do not compare it with the current bundle, which may have twice the items.")
]


@app.command("list")
def list_bundles(config: ConfigOption = None, bundles: BundlesOption = None) -> None:
    """Every bundle, the newest first; a star marks the one that serves, a plus the one that waits for its users."""
    store = BundleStore(load_config(config, bundles).bundle.directory)
    current, waiting = _current(store), store.next()
    for path in store.versions():
        manifest = read_manifest(path)
        made = datetime.fromtimestamp(manifest.created_ms / 1000, UTC)
        mark = "*" if path == current else "+" if path == waiting else " "
        print(f"{mark} {path.name}  made {made:%Y-%m-%d %H:%M} UTC, {manifest.item_count:,} items")


@app.command()
@needs("cpu")
def check(
    path: Annotated[Path, typer.Argument(help="The directory of a bundle.")],
    config: ConfigOption = None,
    bundles: BundlesOption = None,
    against: Annotated[Path | None, typer.Option(help="Another bundle, to compare answers with.")] = None,
    json: Annotated[bool, typer.Option("--json", help="What was found as JSON.")] = False,
) -> None:
    """Open a bundle as a server does, answer sample requests from it, and say what was found. Nothing is changed."""
    # Heavy, and of no use to the other commands.
    from engine.app.bundle_check import as_json, check_bundle

    with refusal():
        findings = check_bundle(path, load_config(config, bundles), against)
    print(as_json(findings) if json else f"{findings.version}: {findings}")


@app.command()
def use(
    version: Annotated[str, typer.Argument(help="As `engine bundles list` names it.")],
    config: ConfigOption = None,
    bundles: BundlesOption = None,
    force: ForceOption = False,
) -> None:
    """Check a bundle and have it served: every server that follows this directory swaps it in.

    It is opened, and answers sample requests, in a process of its own before the pointer moves. One that is refused
    changes nothing; the exit code is 1 then.
    """
    store = BundleStore(load_config(config, bundles).bundle.directory)
    with refusal():
        make_current(store, store.directory / version, config, force=force)


@app.command()
def add(
    source: Annotated[Path, typer.Argument(help="A bundle, or a directory of them: its current one.")],
    config: ConfigOption = None,
    bundles: BundlesOption = None,
    keep: Annotated[
        int | None, typer.Option(min=2, help="Delete all but so many of the newest afterwards; none without it.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Copy a bundle in, check it as `engine bundles use` does, and have it served.

    Trained into another directory and published from there, it serves nobody without their records.
    """
    store = BundleStore(load_config(config, bundles).bundle.directory)
    with refusal():
        make_current(store, store.add(bundle_at(source)), config, force=force)
    for old in store.drop_old(keep) if keep is not None else ():
        print(f"{old.name} is deleted")


@app.command()
@needs("cpu", "train")
def upgrade(
    source: Annotated[Path, typer.Argument(help="The directory of a bundle that an earlier engine has trained.")],
    config: ConfigOption = None,
    bundles: BundlesOption = None,
) -> None:
    """Write a bundle of the feature schema before this one again, so that this engine serves it. Needs the train extra.

    The new one is checked and stays beside the others; `engine bundles use` has it served. Users' records stay good.
    """
    from engine.app.bundle_check import check_apart
    from engine.training.upgrade import upgrade_bundle

    store = BundleStore(load_config(config, bundles).bundle.directory)
    with refusal():
        path = upgrade_bundle(source, store)
        findings = check_apart(path, config, store.directory, None)
    print(f"{path.name} is in {store.directory}: {findings}")


def make_current(store: BundleStore, path: Path, config: Path | None, *, force: bool = False) -> None:
    """Check a bundle of this store in a process of its own, and move the pointer where it is fit to serve.

    Args:
        force: do not compare it with the current one.

    Raises:
        BundleError: it is refused; the pointer is where it was.
    """
    from engine.app.bundle_check import check_apart

    findings = check_apart(path, config, store.directory, None if force else _current(store))
    store.point_to(path.name)
    print(f"{path.name} is current in {store.directory}: {findings}")


def check_and_offer(store: BundleStore, path: Path, config: Path | None, *, at_once: bool) -> None:
    """Check a bundle that was trained into this store; make it current where nothing serves, else let it wait.

    Raises:
        BundleError: it is refused; neither pointer has moved.
    """
    from engine.app.bundle_check import check_apart

    current = _current(store)
    if at_once or current is None:
        make_current(store, path, config)
        return
    findings = check_apart(path, config, store.directory, current)
    store.let_wait(path.name)
    print(f"{path.name} waits in {store.directory}: {findings}")
    print("engine publish-users puts its users' records in place and makes it current; engine bundles use, at once")


def _current(store: BundleStore) -> Path | None:
    try:
        return store.current()
    except BundleError:
        return None


@contextmanager
def refusal() -> Iterator[None]:
    """A bundle that is refused is an answer, and no wrong call: one line, and exit code 1."""
    try:
        yield
    except BundleError as error:
        print(f"engine: refused: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
