"""Commands that other distributions bring: whatever is installed with an entry point in the group `engine.commands`.

A name with a dot, such as import.movielens, is a command of one of the engine's own groups.
"""

import logging
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Final

import typer

from engine.errors import ConfigError

GROUP: Final = "engine.commands"
# What a checkout has in bench/, and an installation of the engine alone has not.
_OF_BENCH: Final = {
    "bench": "Measure the whole system.",
    "demo": "Everything once, from data to recommendations, on this machine.",
    "import.completejourney": "The Complete Journey, a public data set.",
    "import.movielens": "MovieLens, a public data set.",
    "simulate": "Users of known taste use a server.",
    "synth": "Make a synthetic world with tastes, drifting sessions, prices, stock and new items.",
}
_ANYTHING: Final = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def add_installed_commands(app: typer.Typer, groups: Mapping[str, typer.Typer]) -> None:
    """Add each command that is there, and for those of bench/ that are not, one that says what brings it.

    Args:
        groups: the engine's own groups, by name, that commands can be added to.

    Cost: reading the metadata of what is installed, some 20 ms, and the imports of the commands' modules.
    """
    there = {point.name: point for point in entry_points(group=GROUP)}
    for full_name in sorted(there.keys() | _OF_BENCH.keys()):
        group, _, name = full_name.rpartition(".")
        target, text = groups[group] if group else app, _OF_BENCH.get(full_name)
        point = there.get(full_name)
        if point is None:
            refuse = _refuse(full_name.replace(".", " "))
            target.command(name, help=f"{text} Not installed.", context_settings=dict(_ANYTHING))(refuse)
            continue
        command = point.load()
        logging.getLogger(point.module.split(".")[0]).setLevel(logging.INFO)
        if isinstance(command, typer.Typer):
            target.add_typer(command, name=name, help=text)
        else:
            target.command(name)(command)


def _refuse(name: str) -> Callable[[typer.Context], None]:
    def refuse(context: typer.Context) -> None:
        raise ConfigError(
            f"`engine {name}` is in a distribution of its own: pip install ./bench in a checkout, beside the engine"
        )

    return refuse
