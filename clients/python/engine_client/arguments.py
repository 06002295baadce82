"""Arguments of the Python client, judged before a message is made of them.

protobuf takes a string for a list of its characters, leaves out keywords that nobody reads, and says of a wrong type
neither where it was nor what is meant.
"""

import difflib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from types import UnionType
from typing import Any, SupportsFloat, SupportsIndex, Union, get_args, get_origin, get_type_hints

# What passes for the type of a hint: protobuf takes UTF-8 bytes for text, and numbers of other libraries.
_ACCEPTED: dict[type, tuple[type, ...]] = {
    str: (str, bytes),
    int: (SupportsIndex,),
    float: (SupportsFloat,),
    bool: (SupportsIndex,),
}
_SHOWN_CHARACTERS = 60


def check_names(caller: str, fields: Mapping[str, Any], kind: type, *others: str) -> None:
    """Refuse keywords that are not there.

    Args:
        caller: the function that was called.
        kind: the TypedDict of its keywords.
        others: keywords that it has beside those.

    Raises:
        TypeError: names the keyword and what is likely meant.
    """
    known = [*_hints(kind), *others]
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}; {hint}")


def checked_fields(caller: str, fields: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The keywords of a TypedDict with lists for what may be any iterable; None is as good as absent.

    Raises:
        TypeError: a keyword that is not there, or a value that is not of its declared type.
    """
    check_names(caller, fields, kind)
    hints = _hints(kind)
    return {name: checked(name, value, hints[name]) for name, value in fields.items() if value is not None}


def checked(name: str, value: Any, hint: Any) -> Any:
    """The value, a list where the hint is an Iterable.

    Args:
        hint: a class, Iterable[class] or Mapping[str, class]; with or without None.

    Raises:
        TypeError: names the argument, what is meant, and what was given.
    """
    if value is None:
        return None
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        (hint,) = (member for member in get_args(hint) if member is not type(None))
        origin = get_origin(hint)
    if origin is Mapping:
        return _mapping(name, value, get_args(hint)[1])
    if origin is Iterable:
        return _list(name, value, get_args(hint)[0])
    _check_type(name, value, hint)
    return value


def _list(name: str, value: Any, element: type) -> list[Any]:
    accepted = _accepted(element)
    # One thing where several are meant is the likeliest mistake; a text would pass as a list of its characters.
    if isinstance(value, (str, bytes, *accepted)) or not isinstance(value, Iterable):
        hint = "; put it into a list" if isinstance(value, accepted) else ""
        raise TypeError(f"{name}: must be a list of {element.__name__}, got {_shown(value)}{hint}")
    members = list(value)
    for index, member in enumerate(members):
        if not isinstance(member, accepted):
            _check_type(f"{name}[{index}]", member, element)
    return members


def _mapping(name: str, value: Any, element: type) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: must be a mapping of str to {element.__name__}, got {_shown(value)}")
    for key, member in value.items():
        _check_type(f"{name}: a key", key, str)
        _check_type(f"{name}[{key!r}]", member, element)
    return dict(value)


def _check_type(name: str, value: Any, hint: type) -> None:
    if not isinstance(value, _accepted(hint)):
        raise TypeError(f"{name}: must be {_a(hint)}, got {_shown(value)}")


def _accepted(hint: type) -> tuple[type, ...]:
    accepted = _ACCEPTED.get(hint, (hint,))
    # NumPy's truth values have no index. Who has one has imported NumPy, which the client does not need.
    numpy = sys.modules.get("numpy") if hint is bool else None
    return (*accepted, numpy.bool_) if numpy else accepted


def _a(hint: type) -> str:
    return f"{'an' if hint.__name__[0] in 'aeiouAEIOU' else 'a'} {hint.__name__}"


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    text = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return f"the {type(value).__name__} {text}"


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
