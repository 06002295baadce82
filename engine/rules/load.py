"""Read a rules file, or say which line of it cannot be."""

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.errors import RulesError
from engine.rules.conditions import Hours, When
from engine.rules.conflicts import check_conflicts
from engine.rules.document import Document, Place, read_document
from engine.rules.schema import ACTIONS, Allow, Boost, Bury, Cap, Deny, MinShare, Pin, Rules, RulesDocument, Slot
from engine.rules.selector import PriceRange, Selector

# What users write by hand stays far below; a log written to the wrong path does not.
MAX_BYTES: Final = 4 * 1024 * 1024


def load_rules(path: Path, surfaces: Collection[str]) -> Rules:
    """Read and check a file.

    Args:
        surfaces: those that the engine knows.

    Raises:
        RulesError: the file cannot be read, or the first line that cannot be, and why.

    Cost: pure Python, about a millisecond a rule.
    """
    return parse_rules(read_bytes(path), str(path), surfaces)


def read_bytes(path: Path) -> bytes:
    """The file's content. Raises RulesError where there is none, or too much."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RulesError(path, 0, f"cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise RulesError(path, 0, f"larger than {MAX_BYTES:,} bytes")
    return content


def parse_rules(content: bytes, path: str, surfaces: Collection[str]) -> Rules:
    """As load_rules, from the file's content; `path` is what errors name."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RulesError(path, content[: error.start].count(b"\n") + 1, "not UTF-8 text") from None
    document = read_document(text, path)
    try:
        parsed = RulesDocument.model_validate(document.data)
    except ValidationError as error:
        raise _first_refusal(error, document) from None
    lines = tuple(document.line(("rules", index)) for index in range(len(parsed.rules)))
    rules = Rules(path, tuple(surfaces), parsed.rules, lines)
    _check_names(rules, document)
    check_conflicts(rules)
    return rules


def _check_names(rules: Rules, document: Document) -> None:
    first: dict[str, int] = {}
    for index, rule in enumerate(rules.rules):
        line = document.line(("rules", index, "name"))
        if rule.name in first:
            raise RulesError(
                rules.path, line, f"the name {rule.name!r} is taken by the rule in line {first[rule.name]}"
            )
        first[rule.name] = line
        for surface in rule.surfaces or ():
            if surface not in rules.surfaces:
                reason = f"rule {rule.name!r}: no such surface: {surface!r}; known are {', '.join(rules.surfaces)}"
                raise RulesError(rules.path, _surface_line(document, index, surface), reason)


def _surface_line(document: Document, index: int, surface: str) -> int:
    written = document.data["rules"][index]["surfaces"]
    place: Place = ("rules", index, "surfaces")
    return document.line((*place, written.index(surface)) if isinstance(written, list) else place)


def _first_refusal(error: ValidationError, document: Document) -> RulesError:
    """The refusal that comes first in the file, with the rule's name and the keys that lead to it.

    Within a rule what is there and wrong goes before what is missing: a key misspelt is both, and one of them helps.
    """
    refusals = []
    for order, details in enumerate(error.errors(include_url=False)):
        place = _place(details["loc"], document)
        if details["type"] == "union_tag_invalid":
            place = (*place, "action")
        is_missing = details["type"] == "missing"
        refusals.append((document.line(place[:2]), is_missing, document.line(place), order, place, details))
    *_, line, _, place, details = min(refusals, key=lambda refusal: refusal[:4])
    return RulesError(document.path, line, _where(place, document) + _reason(details))


def _place(location: tuple[int | str, ...], document: Document) -> Place:
    """Where in the text an error is: its location, less the action by which the rule's schema was chosen."""
    if location[:1] == ("rules",) and len(location) > 2 and location[2] in ACTIONS:
        location = (*location[:2], *location[3:])
    for length in range(len(location), 0, -1):
        # A value that may be single or a list is numbered by the schema, too.
        if location[:length] in document.lines:
            return location[:length]
    return ()


def _where(place: Place, document: Document) -> str:
    if len(place) < 2:
        return f"{place[0]}: " if place else ""
    rule = document.data["rules"][place[1]]
    name = rule.get("name") if isinstance(rule, dict) else None
    known = f"rule {name!r}: " if isinstance(name, str) and name else ""
    keys = ".".join(str(part) for part in place[2:] if isinstance(part, str))
    return f"{known}{keys}: " if keys else known


def _reason(details: ErrorDetails) -> str:
    found, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "missing":
            return f"the key {details['loc'][-1]!r} is missing"
        case "extra_forbidden":
            return _unknown_key(details["loc"])
        case "union_tag_not_found":
            return f"the key 'action' is missing; it is one of {', '.join(ACTIONS)}"
        case "union_tag_invalid":
            return f"no such action: {context['tag']!r}; {_nearest(str(context['tag']), ACTIONS)}"
        case "string_type" if isinstance(found, int | float):
            return f'text is wanted, found {str(found).lower()}; put it in quotes: "{str(found).lower()}"'
        case "rules":
            return str(context["reason"])
        case "string_type":
            return f"text is wanted, found {_shown(found)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"keys with values are wanted, found {_shown(found)}"
        case "tuple_type":
            return f"a list is wanted, found {_shown(found)}"
        case "literal_error":
            return f"{_shown(found)} is not {context['expected']}"
        case _:
            message = details["msg"].removeprefix("Input should be ").removeprefix("a valid ")
            return f"{message} is wanted, found {_shown(found)}"


def _unknown_key(location: tuple[int | str, ...]) -> str:
    key, inside = str(location[-1]), location[:-1]
    return f"unknown key {key!r}; {_nearest(key, _keys(inside))}"


_RULES: Final[dict[str, type[BaseModel]]] = dict(
    zip(ACTIONS, (Allow, Deny, Boost, Bury, Cap, Pin, Slot, MinShare), strict=True)
)
_PARTS: Final[dict[str, type[BaseModel]]] = {
    "when": When, "hours": Hours, "price": PriceRange, "items": Selector, "not": Selector,
    "any_of": Selector, "all_of": Selector,
}  # fmt: skip


def _keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that a place may have: those of the innermost part of the schema that leads there."""
    model: type[BaseModel] = RulesDocument
    for part in location:
        model = {**_RULES, **_PARTS}.get(str(part), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _nearest(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def _shown(found: Any) -> str:
    if found is None:
        return "nothing"
    if isinstance(found, dict | list):
        return "keys with values" if isinstance(found, dict) else "a list"
    shown = repr(found)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
