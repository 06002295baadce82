"""Changes of the catalogue, and the overlay: the state of each item that has changed since the bundle was written.

Content, stock and moved vectors of an item are kept apart, and the latest change overwrites each. So no change reads
before it writes. Replicas that have seen the same changes hold the same overlay, whether they followed them one by one
or began with a snapshot.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from engine.types import Float32Array
from engine_client.v1 import catalog_pb2 as pb

_NO_VECTORS: Final[Mapping[int, Float32Array]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ContentChange:
    """The item's new content, or its removal (`stored.removed`)."""

    key: int
    stored: pb.StoredItem


@dataclass(frozen=True, slots=True)
class StockChange:
    key: int
    in_stock: bool


@dataclass(frozen=True, slots=True)
class VectorChange:
    """The item's new retrieval vector in one embedding space: float32 (dim,)."""

    key: int
    generation: int
    vector: Float32Array


Change = ContentChange | StockChange | VectorChange


@dataclass(slots=True)
class ItemState:
    """The overlay's entry for one item; None: unchanged since the bundle."""

    key: int
    stored: pb.StoredItem | None = None
    in_stock: bool | None = None
    # Most items have none, and a million empty dictionaries are 64 MB: this one is replaced, never filled.
    vectors: Mapping[int, Float32Array] = field(default_factory=lambda: _NO_VECTORS)
    sequence: int = 0


class Overlay:
    """The sum of all changes. Not thread-safe."""

    def __init__(self) -> None:
        self.sequence = 0
        # In the order of each item's latest change.
        self._states: dict[int, ItemState] = {}

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, key: int) -> bool:
        return key in self._states

    def add(self, changes: Iterable[Change]) -> None:
        """Apply changes, in their order."""
        for change in changes:
            self.sequence += 1
            # Taken out and put in again: it moves to the end.
            state = self._states.pop(change.key, None) or ItemState(change.key)
            self._states[change.key] = state
            state.sequence = self.sequence
            match change:
                case ContentChange():
                    state.stored = change.stored
                case StockChange():
                    state.in_stock = change.in_stock
                case VectorChange():
                    state.vectors = {**state.vectors, change.generation: change.vector}

    def replace(self, changes: Iterable[Change]) -> None:
        """Hold only these changes; items without one go back to their state in the bundle."""
        gone = self._states
        self._states = {}
        self.add(changes)
        for key in gone.keys() - self._states.keys():
            self.sequence += 1
            self._states[key] = ItemState(key, sequence=self.sequence)

    def since(self, sequence: int) -> list[ItemState]:
        """The items that changed after this point, oldest change first. Cost: O(items that changed)."""
        return list(self._newest_down_to(sequence))[::-1]

    def _newest_down_to(self, sequence: int) -> Iterator[ItemState]:
        for state in reversed(self._states.values()):
            if state.sequence <= sequence:
                return
            yield state
