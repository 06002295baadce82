"""Settings from a TOML file, the environment and the command line. An error names the place of the wrong setting."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from engine.config.environment import Environment, read_environment
from engine.config.names import ANY, bounds, nearest, setting_at, shows
from engine.errors import ConfigError, described

# An upper bound of durations.
YEARS_S: Final = 10 * 365 * 86_400


class Section(BaseModel):
    """Settings of one thing: frozen, and a key that nobody declared is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Model = TypeVar("_Model", bound=BaseModel)
_BOUND_ERRORS = frozenset({"greater_than_equal", "greater_than", "less_than_equal", "less_than"})
# By the first part of pydantic's name for it, such as int_parsing and int_from_float.
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "dict": "a table",
    "model": "a table",
    "tuple": "a list",
    "path": "a path",
}
_MISSING = object()


def load_settings(
    model: type[_Model],
    path: Path | None,
    variables: Mapping[str, str],
    flags: Mapping[str, Any],
) -> _Model:
    """Merge a TOML file (none: the defaults), environment variables, and values of the command line; the last wins.

    Args:
        variables: see engine.config.environment; empty: the environment has no say.
        flags: nested as the file is.

    Raises:
        ConfigError: everything that is wrong, a line each: where it is from, key, value and what is allowed.
    """
    file = _read_toml(path) if path is not None else {}
    environment = read_environment(model, variables)
    problems = list(environment.problems)
    sources = _Sources(str(path or "settings"), file, environment, flags)
    settings: _Model | None = None
    try:
        settings = model.model_validate(sources.merged)
    except ValidationError as error:
        problems += [_problem(model, sources, details) for details in _roots(error.errors())]
    if settings is None or problems:
        raise ConfigError("\n".join(problems))
    return settings


class _Sources:
    """Where settings are from."""

    def __init__(self, file_name: str, file: Mapping[str, Any], environment: Environment, flags: Mapping[str, Any]):
        self._file_name, self._file, self._environment, self._flags = file_name, file, environment, flags
        self.merged = _merge(_merge(file, environment.values), flags)

    def of(self, path: tuple[str | int, ...]) -> str:
        """Where what is at a path is from: the source that wins, or all of them where it is a whole section."""
        found = [] if _value_at(self._flags, path) in (_MISSING, {}) else ["the command line"]
        for own, name in self._environment.variables.items():
            if own[: len(path)] == path[: len(own)]:
                found.append(name)
        if not found or isinstance(_value_at(self.merged, path), dict):
            return ", ".join([self._file_name, *found])
        return found[0]


def _roots(errors: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Without those that follow from others: a list lacks what one of its members is wrong in."""
    for error in errors:
        path = error["loc"]
        if not any(other["loc"][: len(path)] == path and len(other["loc"]) > len(path) for other in errors):
            yield error


def _problem(model: type[BaseModel], sources: _Sources, details: ErrorDetails) -> str:
    path, kind = details["loc"], details["type"]
    if path and path[-1] == "[key]":
        # Of a table with declared keys.
        return f"{sources.of(path[:-1])}: {_dotted(path[:-1])}: no such key; it {_reason(details)}"
    # What settings are not together has no place of its own: its reason names them.
    where = f"{sources.of(path)}: {_dotted(path)}" if path else sources.of(path)
    if kind == "extra_forbidden":
        near = nearest(model, tuple(map(str, path)))
        hint = f"; did you mean {_dotted(near).replace(ANY, '<name>')}?" if near else ""
        return f"{where}: no such setting{hint}"
    if kind == "missing":
        return f"{where}: is required"
    setting = setting_at(model, path)
    value = f" = {_value_at(sources.merged, path)!r}" if shows(setting) else ""
    return f"{where}{value}: {_reason(details, bounds(setting.field if setting is not None else None))}"


def _reason(details: ErrorDetails, allowed: str = "") -> str:
    error = details["type"]
    if error in _BOUND_ERRORS and allowed:
        return f"must be {allowed}"
    kind = _KINDS.get(error.split("_")[0])
    # A text that is too long is no text of another kind.
    if kind is not None and error.endswith(("_type", "_parsing", "_number", "_from_float")):
        return f"must be {kind}" + (f", {allowed}" if allowed else "")
    return details["msg"].removeprefix("Value error, ").replace("Input should", "must")


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))


def _value_at(values: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return values


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: {described(error)}") from None


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged
