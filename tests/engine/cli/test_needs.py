"""What a command lacks is said before it starts, and what it declares is what it imports."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from engine.cli.main import app, run
from engine.cli.needs import EXTRAS

ROOT = Path(__file__).parents[3]
Commands = Iterator[tuple[str, typer.models.CommandInfo]]


def commands(group: typer.Typer, prefix: str = "") -> Commands:
    for command in group.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")  # type: ignore[union-attr]
        yield prefix + name, command
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{prefix}{inner.name} ")


def imported(tree: ast.AST, functions: bool) -> set[str]:
    """Modules that a piece of code imports; inside its functions as well, or not."""
    found: set[str] = set()
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not functions:
            continue
        if isinstance(child, ast.Import):
            found |= {name.name for name in child.names}
        elif isinstance(child, ast.ImportFrom) and child.module:
            found |= {child.module} | {f"{child.module}.{name.name}" for name in child.names}
        found |= imported(child, functions)
    return found


def source(module: str) -> Path | None:
    paths = [root / module.replace(".", "/") for root in (ROOT, ROOT / "bench")]
    files = [file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py")]
    return next((file for file in files if file.exists()), None)


@cache
def imported_by(file: Path) -> frozenset[str]:
    return frozenset(imported(ast.parse(file.read_text()), functions=False))


@cache
def needed(module: str) -> frozenset[str]:
    """The packages that importing a module brings in, through the engine's other modules."""
    packages, seen, open_modules = set(), {module}, [module]
    while open_modules:
        current = open_modules.pop()
        file = source(current)
        if file is None:
            packages.add(current.split(".")[0])
            continue
        found = imported_by(file) - seen
        seen |= found
        open_modules += found
    return frozenset(packages)


@pytest.mark.parametrize(("name", "command"), [pytest.param(*found, id=found[0]) for found in commands(app)])
def test_what_a_command_imports_is_declared(name: str, command: typer.models.CommandInfo) -> None:
    callback = command.callback
    assert callback is not None
    module = inspect.getmodule(inspect.unwrap(callback))
    assert module is not None
    body = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(callback))))
    packages = set().union(*(needed(found) for found in imported(body, functions=True)), needed(module.__name__))
    declared = {package for extra in getattr(callback, "extras", ()) for package in EXTRAS[extra]}
    assert packages & {package for names in EXTRAS.values() for package in names} <= declared


@pytest.mark.parametrize(
    ("arguments", "lacks", "said"),
    [
        (["bench", "world"], "scipy", "needs scipy, not installed here: pip install 'personalization-engine[train]'"),
        (["train", "nowhere"], "torch", "needs torch, not installed here: pip install 'personalization-engine[train]'"),
        (["evaluate", "nowhere"], "implicit", "needs implicit, "),
        (["demo"], "duckdb", "needs duckdb, not installed here: pip install 'personalization-engine[analysis]'"),
        (["demo"], "scipy", "pip install 'personalization-engine[train,analysis]'"),
        (["experiment", "report", "x"], "duckdb", "needs duckdb, "),
        (["serve"], "faiss", "'.[cpu]' in a checkout; on a GPU, gpu instead of cpu"),
        (["process"], "onnxruntime", "needs onnxruntime, "),
        (["publish-users", "nowhere"], "onnxruntime", "needs onnxruntime, "),
    ],
)
def test_what_is_not_there_is_said_first(
    arguments: list[str],
    lacks: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, lacks, None)
    monkeypatch.setattr(sys, "argv", ["engine", *arguments])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("engine: this command needs ")
    assert said in line
    assert not list(tmp_path.iterdir())
