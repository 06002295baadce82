"""A YAML text as plain data, with the line of every place in it.

YAML 1.2, so that `NO` is Norway and not false, and `18:00` a time of day and not 1080. Only mappings, lists and
scalars: aliases and tags could only hide what a rule says (and let a small file grow without bound).
"""

import io
from dataclasses import dataclass
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from engine.errors import RulesError

Place = tuple[str | int, ...]

_TAG: Final = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed text.

    data: dicts with text keys, lists, str, int, float, bool and None; dates stay text.
    lines: the 1-based line of each place, a place being the keys and positions that lead there.
    """

    path: str
    data: Any
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest one around it that the text has."""
        while place not in self.lines and place:
            place = place[:-1]
        return self.lines.get(place, 0)


def read_document(text: str, path: str) -> Document:
    """Parse a YAML text.

    Raises:
        RulesError: no YAML, more than one document, an alias, a tag, a key that appears twice or has no value; with
            its line.

    Cost: pure Python, about a millisecond per 50 lines.
    """
    yaml = YAML(typ="safe", pure=True)
    lines: dict[Place, int] = {}
    try:
        root = yaml.compose(io.StringIO(text))
        if root is None:
            raise RulesError(path, 0, "the file is empty; write `version: 1` and a list `rules`")
        return Document(path, _Reader(yaml, path, lines).read(root, (), _line(root)), lines)
    except _Alias:
        raise RulesError(path, _alias_line(text), "aliases (*name) are not supported; write it out") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RulesError(path, mark.line + 1 if mark else 0, f"not YAML: {error.problem or error.context}") from None
    except YAMLError as error:
        raise RulesError(path, 0, f"not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise RulesError(path, 0, "nested too deeply") from None


class _Alias(Exception):
    """A node that was met before; it does not know from where it is referred to."""


def _alias_line(text: str) -> int:
    events = YAML(typ="safe", pure=True).parse(io.StringIO(text))
    return next((_line(event) for event in events if isinstance(event, AliasEvent)), 0)


class _Reader:
    """Walks the nodes of one text."""

    def __init__(self, yaml: YAML, path: str, lines: dict[Place, int]) -> None:
        self._constructor = yaml.constructor
        self._path = path
        self._lines = lines
        self._met: set[int] = set()

    def read(self, node: Node, place: Place, line: int) -> Any:
        if id(node) in self._met:
            raise _Alias
        self._met.add(id(node))
        self._lines[place] = line
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, place)
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return [self.read(item, (*place, index), _line(item)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self._scalar(node, line)
        raise RulesError(self._path, line, f"tags such as {node.tag} are not supported")

    def _mapping(self, node: MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            if key is None:
                raise RulesError(self._path, line, "a key must be a word")
            if key in found:
                reason = f"the key {key!r} appears twice; first in line {self._lines[*place, key]}"
                raise RulesError(self._path, line, reason)
            value = self.read(value_node, (*place, key), line)
            if value is None:
                # Read as absent it would widen a rule: `surfaces:` half typed must not come to mean everywhere.
                raise RulesError(self._path, line, f"the key {key!r} has no value; give it one, or leave it out")
            found[key] = value
        return found

    def _scalar(self, node: ScalarNode, line: int) -> Any:
        kind = str(node.tag).removeprefix(_TAG)
        if kind in ("str", "timestamp"):
            return node.value
        if kind in ("null", "bool", "int", "float"):
            try:
                return self._constructor.construct_object(node)
            except ValueError:
                raise RulesError(self._path, line, f"{node.value!r} is no {kind}") from None
        raise RulesError(self._path, line, f"tags such as {node.tag} are not supported")


def _line(node: Node | AliasEvent) -> int:
    return int(node.start_mark.line) + 1
