"""No message ends with an empty reason: what a library raises is described, not formatted as it comes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import engine.errors

ROOT = Path(__file__).resolve().parents[1]
# Their text is written by the engine.
OWN = {name for name, kind in vars(engine.errors).items() if isinstance(kind, type)} | {
    "KafkaMissing", "ValidationError", "JSONDecodeError",
    "TOMLDecodeError",
}  # fmt: skip


def _names(kind: ast.expr | None) -> Iterator[str]:
    for node in ast.walk(kind) if kind is not None else ():
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id


def _foreign_errors(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Where a name is an error that may not be the engine's own: handlers, and functions that take one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.name is not None and not set(_names(node.type)) <= OWN:
            yield node, node.name
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for argument in node.args.args:
                kinds = {name for name in _names(argument.annotation) if name.endswith(("Error", "Exception"))}
                if kinds - OWN - {"KafkaError"}:
                    yield node, argument.arg


def bare_reasons(source: str) -> list[int]:
    """Lines where an error of somebody else's is put into a message as it comes."""
    found = []
    for scope, name in _foreign_errors(ast.parse(source)):
        for node in ast.walk(scope):
            put = list(node.values) if isinstance(node, ast.JoinedStr) else []
            parts = [value.value for value in put if isinstance(value, ast.FormattedValue) and value.conversion == -1]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = node.func.value
                parts += node.args if isinstance(of, ast.Name) and of.id == "log" else []
            found += [part.lineno for part in parts if isinstance(part, ast.Name) and part.id == name]
    return found


def test_the_check_finds_what_it_is_for() -> None:
    assert bare_reasons("try:\n  f()\nexcept OSError as error:\n  raise E(f'no: {error}')") == [4]
    assert bare_reasons("try:\n  f()\nexcept (OSError, EngineError) as e:\n  log.error('%s', e)") == [4]
    assert bare_reasons("def f(error: Exception):\n  return E(f'no: {error}')") == [2]
    assert bare_reasons("try:\n  f()\nexcept OSError as error:\n  raise E(f'no: {described(error)}')") == []
    assert bare_reasons("try:\n  f()\nexcept EngineError as error:\n  log.error('%s', error)") == []


def test_every_message_has_its_reason() -> None:
    files = [*(ROOT / "engine").rglob("*.py"), *(ROOT / "deploy").rglob("*.py")]
    found = [f"{path.relative_to(ROOT)}:{line}" for path in sorted(files) for line in bare_reasons(path.read_text())]
    assert not found, "use engine.errors.described(error): " + ", ".join(found)
