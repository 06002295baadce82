"""Commands of other distributions, there and not there."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest
import typer
from typer.testing import CliRunner

import engine.cli.installed
from engine.cli.installed import GROUP, add_installed_commands
from engine.errors import ConfigError

hello = typer.Typer(no_args_is_help=True)


@hello.command()
def world() -> None:
    print("hello, world")


@hello.command()
def moon() -> None:
    print("hello, moon")


def greet(name: str) -> None:
    print(f"hello, {name}")


def application(monkeypatch: pytest.MonkeyPatch, **commands: str) -> typer.Typer:
    points = EntryPoints(EntryPoint(name, f"{__name__}:{what}", GROUP) for name, what in commands.items())
    monkeypatch.setattr(engine.cli.installed, "entry_points", lambda group: points.select(group=group))
    app, own = typer.Typer(), typer.Typer()
    app.add_typer(own, name="import")
    add_installed_commands(app, {"import": own})
    return app


def test_what_is_installed_is_a_command_or_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    app = application(monkeypatch, greet="greet", hello="hello")
    assert CliRunner().invoke(app, ["greet", "you"]).stdout == "hello, you\n"
    assert CliRunner().invoke(app, ["hello", "moon"]).stdout == "hello, moon\n"


@pytest.mark.parametrize(
    "arguments",
    [["demo"], ["bench", "tail", "--json", "x"], ["simulate", "--help"], ["import", "movielens", "DIR", "OUT"]],
)
def test_what_is_not_installed_says_what_brings_it(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(application(monkeypatch), arguments)
    assert isinstance(result.exception, ConfigError)
    assert f"`engine {arguments[0]}" in str(result.exception)
    assert "pip install ./bench" in str(result.exception)


def test_a_name_with_a_dot_is_a_command_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    app = application(monkeypatch, **{"import.friends": "greet"})
    assert CliRunner().invoke(app, ["import", "friends", "you"]).stdout == "hello, you\n"
