"""Commands that other distributions bring: whatever is installed with an entry point in the group `engine.commands`."""

import logging
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Final

import typer

from engine.errors import ConfigError

GROUP: Final = "engine.commands"
# What a checkout has in bench/, and an installation of the engine alone has not.
_OF_BENCH: Final = {
    "bench": "Measure the whole system.",
    "demo": "Everything once, from data to recommendations, on this machine.",
    "simulate": "People of known taste use a server.",
    "synth": "Make a synthetic world with tastes, drifting sessions, prices, stock and new items.",
}
_ANYTHING: Final = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def add_installed_commands(app: typer.Typer) -> None:
    """Add each command that is there, and for those of bench/ that are not, one that says what brings it.

    Cost: reading the metadata of what is installed, some 20 ms, and the imports of the commands' modules.
    """
    there = {point.name: point for point in entry_points(group=GROUP)}
    for name, point in sorted(there.items()):
        command = point.load()
        logging.getLogger(point.module.split(".")[0]).setLevel(logging.INFO)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, help=_OF_BENCH.get(name))
        else:
            app.command(name)(command)
    for name, text in _OF_BENCH.items():
        if name not in there:
            app.command(name, help=f"{text} Not installed.", context_settings=dict(_ANYTHING))(_refuse(name))


def _refuse(name: str) -> Callable[[typer.Context], None]:
    def refuse(context: typer.Context) -> None:
        raise ConfigError(
            f"`engine {name}` is in a distribution of its own: pip install ./bench in a checkout, beside the engine"
        )

    return refuse
