"""What settings a model has, by the path of their keys, and which of them somebody likely meant."""

import difflib
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Path = tuple[str | int, ...]
# Matches any key, such as a surface's name, and any place in a list.
ANY = "*"
_CLOSE_KEY = 0.6
_CLOSE_PATH = 0.75


class Setting(NamedTuple):
    """The setting at a path: a field with its type, or a part of one, such as an entry of a table."""

    hint: Any
    field: FieldInfo | None

    @property
    def number(self) -> type | None:
        """int or float, where it is a number."""
        hint = _bare(self.hint)
        return hint if hint in (int, float) else None


def setting_at(model: type[BaseModel], path: Path) -> Setting | None:
    """What a path names; None where there is nothing of this name."""
    here = Setting(model, None)
    for key in path:
        hint = _bare(here.hint)
        if _is_model(hint):
            field = hint.model_fields.get(key)
            if field is None:
                return None
            here = Setting(field.annotation, field)
        elif (origin := get_origin(hint)) is dict:
            here = Setting(get_args(hint)[1], None)
        elif origin in (tuple, list):
            here = Setting(get_args(hint)[0], None)
        else:
            return None
    return here


def is_table(hint: Any) -> bool:
    """Whether a value of this type has parts: a section, a table or a list."""
    hint = _bare(hint)
    return _is_model(hint) or get_origin(hint) in (dict, tuple, list)


def shows(setting: Setting | None) -> bool:
    """Whether its value may stand in a message: free text may be a password or hold one."""
    hint = _bare(setting.hint) if setting is not None else None
    return hint in (int, float, bool) or get_origin(hint) is Literal


def bounds(field: FieldInfo | None) -> str:
    """What a number may be, in words; empty where it has no bounds."""
    low = high = ""
    for bound in field.metadata if field is not None else ():
        if isinstance(bound, Ge):
            low = f"at least {bound.ge:,}"
        elif isinstance(bound, Gt):
            low = f"above {bound.gt:,}"
        elif isinstance(bound, Le):
            high = f"at most {bound.le:,}"
        elif isinstance(bound, Lt):
            high = f"below {bound.lt:,}"
    if low.startswith("at least ") and high.startswith("at most "):
        return f"{low.replace('at least', 'from')} {high.replace('at most', 'to')}"
    return " and ".join(part for part in (low, high) if part)


def nearest(model: type[BaseModel], path: tuple[str, ...]) -> tuple[str, ...] | None:
    """The setting that is likely meant by a path that names none; None where nothing comes near."""
    known = paths(model)
    # A single underscore between section and key, as in ENGINE_REDIS_URL.
    for other in known:
        if _joined(other) == _joined(path):
            return other
    # The right key in the wrong section, or without one.
    same_key = [other for other in known if other[-1] == path[-1]]
    if same_key:
        return max(same_key, key=lambda other: _likeness(".".join(path), ".".join(other)))
    siblings = [other for other in known if len(other) == len(path) and all(map(_same_key, other[:-1], path[:-1]))]
    best = max(siblings, key=lambda other: _likeness(path[-1], other[-1]), default=None)
    if best is not None and _likeness(path[-1], best[-1]) >= _CLOSE_KEY:
        return (*path[:-1], best[-1])
    best = max(known, key=lambda other: _likeness(".".join(path), ".".join(other)))
    return best if _likeness(".".join(path), ".".join(best)) >= _CLOSE_PATH else None


@cache
def paths(model: type[BaseModel]) -> tuple[tuple[str, ...], ...]:
    """Every section and setting there is, with ANY for keys that are free."""

    def walk(hint: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        hint = _bare(hint)
        if _is_model(hint):
            for name, field in hint.model_fields.items():
                yield (*path, name)
                yield from walk(field.annotation, (*path, name))
        elif (origin := get_origin(hint)) in (dict, tuple):
            yield from walk(get_args(hint)[origin is dict], (*path, ANY))

    return tuple(walk(model, ()))


def _bare(hint: Any) -> Any:
    """The hint without None; unions of several others stay as they are."""
    if get_origin(hint) in (Union, UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        return members[0] if len(members) == 1 else hint
    return hint


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _joined(path: tuple[str, ...]) -> str:
    return "_".join(path)


def _same_key(known: str, given: str) -> bool:
    return known in (ANY, given)


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
