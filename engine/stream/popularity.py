"""How popular items are at this moment, counted while events arrive: users, decayed, by scope and log partition.

A partition has one writer, so that its counts are a plain fold in the order of the log; they are stored in one step
with the offset that they include, and readers add the partitions up. Event time throughout: a replay counts the same.
Stored is a hash: item key (int64, little-endian) to ENTRY_DTYPE.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.bundle.popularity import segment_key, surface_key
from engine.features.schema import POPULARITY_WINDOWS_S
from engine.kernels.popularity import count_moves, counts_at
from engine.types import BoolArray, Demographics, Int64Array

# The windows that a live count can tell anything of; longer ones are training's.
LIVE_WINDOWS: Final = ("1h", "24h", "7d")
LIFETIMES_MS: Final = np.array([POPULARITY_WINDOWS_S[name] * 1000.0 for name in LIVE_WINDOWS])
# Decayed counts as of a reference time; float64, so that decaying in many steps and in one agree.
ENTRY_DTYPE: Final = np.dtype([("reference_ms", "<i8"), ("counts", "<f8", (len(LIVE_WINDOWS),))])
# The window that decides what is kept: the longest.
_KEPT_BY: Final = len(LIVE_WINDOWS) - 1
_KEY: Final = np.dtype("<i8")
OVERALL: Final = ""
_SEGMENTS: Final = (("age_group",), ("location",), ("signup_source",))


@lru_cache(maxsize=4096)
def scopes_of(demographics: Demographics) -> tuple[str, ...]:
    """The lists in which a user counts wherever an event is: overall, and their segments where they are known.

    Named like the lists of a bundle (engine.bundle.popularity); one demographic value each, so that few are sparse.
    """
    segments = (segment_key(level, demographics) for level in _SEGMENTS)
    return (OVERALL, *(name for name in segments if name is not None))


@lru_cache(maxsize=4096)
def scope_of_surface(surface: str) -> str:
    """The list of a surface, in which a user counts by what they do there."""
    return surface_key(surface)


@dataclass(slots=True)
class Scope:
    """One list of one partition, and what changed since it was last stored.

    An item has a position for as long as it is kept: its place in `index`, which is also the order of the arrays. They
    are longer than the index, and what they hold after its end means nothing.

    Args:
        index: position by item key. item_keys: int64 (capacity,). entries: ENTRY_DTYPE (capacity,).
        changed: bool (capacity,). removed: item keys that are stored, perhaps, and no longer here.
    """

    index: dict[int, int]
    item_keys: Int64Array
    entries: npt.NDArray[np.void]
    changed: BoolArray
    removed: set[int] = field(default_factory=set)

    @staticmethod
    def unpack(stored: Mapping[bytes, bytes], latest_ms: int | None = None) -> "Scope":
        """The list of a stored hash. Raises ValueError for bytes that are no entries.

        Args:
            latest_ms: entries as of a later moment, which a wrong clock has left, are as of this one from now on:
                otherwise nothing would ever count beside them.
        """
        if any(len(key) != _KEY.itemsize for key in stored) or any(
            len(entry) != ENTRY_DTYPE.itemsize for entry in stored.values()
        ):
            raise ValueError("an entry of another form than this engine's")
        item_keys = np.frombuffer(b"".join(stored), _KEY).copy()
        entries = np.frombuffer(b"".join(stored.values()), ENTRY_DTYPE).copy()
        index = dict(zip(item_keys.tolist(), range(len(item_keys)), strict=True))
        changed = np.zeros(len(item_keys), np.bool_)
        if latest_ms is not None:
            changed = entries["reference_ms"] > latest_ms
            entries["reference_ms"][changed] = latest_ms
        return Scope(index, item_keys, entries, changed)

    def count(self, item_keys: Int64Array, before_ms: Int64Array, after_ms: Int64Array, limit: int) -> None:
        """Move users in log order; whenever 2 * `limit` items are there, the less popular half goes.

        When it goes depends on the moves alone, never on how they were batched: it goes right after the one that
        brought the last item, and those after that find it gone.

        Args:
            item_keys, before_ms, after_ms: int64 (n,), see engine.kernels.popularity.count_moves.

        Cost: about 0.3 µs a move, and amortized O(log limit) for each item that is new.
        """
        keys = item_keys.tolist()
        start = 0
        while start < len(keys):
            known = len(self.index)
            positions = np.array(self._place(keys, start, 2 * limit), np.int64)
            end = start + len(positions)
            self._evict(len(self.index))
            self.item_keys[positions] = item_keys[start:end]
            entries = self.entries
            count_moves(
                entries["reference_ms"],
                entries["counts"],
                self.changed,
                known,
                positions,
                before_ms[start:end],
                after_ms[start:end],
                LIFETIMES_MS,
            )
            if self.removed:
                self.removed.difference_update(keys[start:end])
            if len(self.index) >= 2 * limit:
                self._prune(max(before_ms[end - 1], after_ms[end - 1]), limit)
            start = end

    def packed(self, positions: npt.NDArray[np.integer]) -> dict[bytes, bytes]:
        """The entries at these positions as they are stored."""
        keys: list[bytes] = self.item_keys[positions].view(f"V{_KEY.itemsize}").tolist()
        entries: list[bytes] = self.entries[positions].view(f"V{ENTRY_DTYPE.itemsize}").tolist()
        return dict(zip(keys, entries, strict=True))

    def packed_changes(self) -> dict[bytes, bytes]:
        """The entries that changed since they were stored, as they are to be stored."""
        return self.packed(np.flatnonzero(self.changed))

    def packed_removals(self) -> list[bytes]:
        """The keys of the entries that are to be removed from what is stored."""
        packed: list[bytes] = np.array(list(self.removed), _KEY).view(f"V{_KEY.itemsize}").tolist()
        return packed

    def stored(self) -> None:
        """Everything up to here is stored."""
        self.changed[:] = False
        self.removed.clear()

    def _place(self, item_keys: Sequence[int], start: int, most: int) -> list[int]:
        """Positions of items, new ones after all others, up to the event with which the list is as long as it gets."""
        index = self.index
        if len(index) + len(item_keys) - start < most:
            return [index.setdefault(item, len(index)) for item in islice(item_keys, start, None)]
        positions = []
        for item in islice(item_keys, start, None):
            position = index.get(item)
            if position is None:
                position = index[item] = len(index)
            positions.append(position)
            if len(index) >= most:
                break
        return positions

    def _evict(self, size: int) -> None:
        """Twice as much as before, so that a list that grows is copied a few times only."""
        capacity = len(self.entries)
        if size > capacity:
            more = max(size, 2 * capacity) - capacity
            self.item_keys = np.concatenate([self.item_keys, np.zeros(more, np.int64)])
            self.entries = np.concatenate([self.entries, np.zeros(more, ENTRY_DTYPE)])
            self.changed = np.concatenate([self.changed, np.zeros(more, np.bool_)])

    def _prune(self, time_ms: int, limit: int) -> None:
        size = len(self.index)
        item_keys, entries = self.item_keys[:size], self.entries[:size]
        # Computed as they are counted, and not by NumPy, whose exp is another one on another CPU.
        left = counts_at(entries["reference_ms"], entries["counts"], time_ms, LIFETIMES_MS)[:, _KEPT_BY]
        # Ties by key: an order of its own, whatever order the entries were loaded in.
        order = np.lexsort((item_keys, -left))
        kept = order[:limit]
        self.removed.update(item_keys[order[limit:]].tolist())
        self.item_keys, self.entries, self.changed = item_keys[kept], entries[kept], self.changed[kept]
        self.index = dict(zip(self.item_keys.tolist(), range(limit), strict=True))
