"""The command line; see the package."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from deploy.rehearse.build import Builder, remove
from deploy.rehearse.checks import check_image, check_installed
from deploy.rehearse.context import Context
from deploy.rehearse.dockerfile import read_stages
from deploy.rehearse.install import install
from deploy.rehearse.world import World
from engine.errors import EngineError

REPOSITORY = Path(__file__).resolve().parents[2]
_NEEDED = ("debootstrap", "unshare", "nsenter", "setpriv", "chroot")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def rehearse(
    file: Annotated[Path, typer.Argument(help="The Dockerfile.")] = REPOSITORY / "Dockerfile",
    work: Annotated[Path, typer.Option(help="Directory for roots and logs.")] = REPOSITORY / "var/rehearse",
    build_arg: Annotated[list[str] | None, typer.Option(help="NAME=value, as for `docker build`.")] = None,
    port: Annotated[int, typer.Option(help="Port of the engine; its metrics are on the next one.")] = 50951,
    keep: Annotated[bool, typer.Option(help="Keep the roots for a look.")] = False,
) -> None:
    """Perform the steps of a Dockerfile in a clean root, run what they made, call it, and have it leave."""
    build_args = dict(argument.split("=", 1) for argument in build_arg or [])
    stages = read_stages(file, build_args)
    work = work.resolve()
    world = World.make(work / "world")
    if missing := _missing():
        print(
            f"no root to build in, since {missing}: the same packages in a virtual environment, run as a plain process"
        )
        for finding in check_installed(install(stages, REPOSITORY, work / "installed", build_args), world, work, port):
            _report(finding)
        print(f"{file.name}: its packages, command, health check and signal rehearsed, its other steps not")
        return
    try:
        image = Builder(Context(REPOSITORY), work, build_args).build(stages)
        _report(f"{_size_mb(image.root):,.0f} MB in all, {_size_mb(image.root / 'opt'):,.0f} of it the engine")
        for finding in check_image(image, world, work, port):
            _report(finding)
    finally:
        if not keep:
            remove(work)
    print(f"{file.name}: rehearsed to the end")


def _missing() -> str:
    """Why this machine cannot stand in for Docker; empty where it can."""
    if os.geteuid() != 0:
        return "this is not root"
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    return f"{', '.join(missing)} is missing" if missing else ""


def _report(line: str) -> None:
    print(f"ok: {line}", flush=True)


def _size_mb(directory: Path) -> float:
    used = subprocess.run(["du", "-sxk", str(directory)], check=True, capture_output=True, text=True).stdout
    return int(used.split()[0]) / 1024


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        app()
    except EngineError as error:
        print(f"rehearse: {error}", file=sys.stderr)
        raise SystemExit(1) from None
