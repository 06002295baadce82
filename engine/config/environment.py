"""Settings from environment variables: ENGINE_REDIS__URL is redis.url.

Below the section, `__` goes one table further down. A section, a table or a list can be given whole, as JSON.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from engine.config.names import ANY, is_table, nearest, setting_at
from engine.errors import described

_PREFIX: Final = "ENGINE_"
# Of this prefix, but no settings: the file with the settings, and what scripts around a checkout know it by.
_OTHERS: Final = frozenset({"ENGINE_CONFIG", "ENGINE_PY", "ENGINE_REPO"})
# Kubernetes and Docker's links tell every container where the services of its namespace are: one called `engine` gives
# ENGINE_SERVICE_HOST and ENGINE_PORT=tcp://…, one called `engine-metrics` the same after ENGINE_METRICS.
_SERVICE_NAMES: Final = re.compile(
    r"ENGINE(_[A-Z0-9_]+?)??_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?|ENV_.+)"
)
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://\S+")
_LINK_NAME: Final = re.compile(r"(/[\w.-]+){2}")


@dataclass(frozen=True, slots=True)
class Environment:
    """What the environment says: nested values, which variable each is from, and what is wrong."""

    values: dict[str, Any] = field(default_factory=dict)
    variables: dict[tuple[str, ...], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_environment(model: type[BaseModel], variables: Mapping[str, str]) -> Environment:
    """Take the settings out of the environment. Names are read without regard to case."""
    found = Environment()
    # A section before its keys: what is said of a key alone goes before what is said of all.
    for name, text in sorted(variables.items(), key=lambda variable: variable[0].upper().count("__")):
        upper = name.upper()
        if not upper.startswith(_PREFIX) or upper in _OTHERS:
            continue
        path = tuple(upper.removeprefix(_PREFIX).lower().split("__"))
        setting = setting_at(model, path)
        if setting is None:
            if not _is_service_link(upper, text):
                found.problems.append(f"{name}: no such setting{_hint(model, path)}")
            continue
        value: Any = text
        if is_table(setting.hint):
            try:
                value = json.loads(text)
            except json.JSONDecodeError as error:
                found.problems.append(f"{name}: must be JSON, as all of {'.'.join(path)}: {described(error)}")
                continue
        _put(found.values, path, value)
        found.variables[path] = name
    return found


def variable_of(path: tuple[str, ...]) -> str:
    """The variable that sets a setting."""
    return _PREFIX + "__".join(path).upper()


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            return  # of a section that is wrong as a whole, which is said instead
        values = inner
    values[path[-1]] = value


def _hint(model: type[BaseModel], path: tuple[str, ...]) -> str:
    near = nearest(model, path)
    if near is None:
        return f"; settings are {_PREFIX}<SECTION>__<KEY>, and other variables must not begin with {_PREFIX}"
    return f"; did you mean {variable_of(near).replace(ANY, '<NAME>')}?"


def _is_service_link(name: str, text: str) -> bool:
    if _SERVICE_NAMES.fullmatch(name):
        return True
    return bool(
        (name.endswith("_PORT") and _SERVICE_ADDRESS.fullmatch(text))
        or (name.endswith("_NAME") and _LINK_NAME.fullmatch(text))
    )
