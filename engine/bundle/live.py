"""A bundle's popularity as it is at this moment: the lists that requests read, and the counts that its ranker reads."""

from collections.abc import Mapping

import numpy as np

from engine.bundle.bundle import ITEM_DYNAMIC_FILE, Bundle
from engine.bundle.popularity import Popularity
from engine.stream.popularity import OVERALL
from engine.stream.trending import ItemCounts, blend, dynamic_rows, evidence_of, scopes_of_popularity
from engine.types import Int64Array
from kernels.membership import rows_of_keys


class LivePopularity:
    """Belongs to one opened bundle and goes with it, so that a swap and an update cannot lose each other's work.

    `lists` is replaced as one object: a request that reads it has all lists of one moment. The ranker's counts are
    changed in place while requests read them: a row may be half old and half new for one score, which is no more
    wrong than either. One `apply` at a time.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._known: Popularity = bundle.popularity
        # Mapped: the bundle's own counts, for the rows that go back to them.
        self._known_dynamic = np.load(bundle.path / ITEM_DYNAMIC_FILE, mmap_mode="r", allow_pickle=False)
        self._positions = np.empty(len(bundle.items), np.int32)
        self._positions[self._known.overall.rows] = np.arange(len(bundle.items), dtype=np.int32)
        self._changed: Int64Array = np.empty(0, np.int64)
        self.lists: Popularity = self._known

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes whose live counts bear on this bundle."""
        return scopes_of_popularity(self._known)

    def apply(self, live: Mapping[str, ItemCounts], prior_events: float) -> None:
        """Show these live counts, by scope, instead of those of the last call; without any, it is the bundle as it was.

        Items that the bundle does not hold are left out. Cost: engine.stream.trending.blend, and a write to each row
        of item_dynamic that has live counts or had them.
        """
        rows = {scope: self._rows(counts.keys) for scope, counts in live.items()}
        if OVERALL in live:
            self._show_counts(rows[OVERALL], live[OVERALL])
        evidence = {scope: evidence_of(rows[scope], counts.counts) for scope, counts in live.items()}
        self.lists = blend(self._known, self._positions, evidence, prior_events)

    def _show_counts(self, rows: Int64Array, counts: ItemCounts) -> None:
        known = rows >= 0
        rows = rows[known]
        dynamic = self._bundle.item_dynamic
        silent = np.setdiff1d(self._changed, rows)
        dynamic[silent] = self._known_dynamic[silent]
        dynamic[rows] = dynamic_rows(self._known_dynamic[rows], counts.counts[known])
        self._changed = rows

    def _rows(self, keys: Int64Array) -> Int64Array:
        return rows_of_keys(self._bundle.items.sorted_keys, self._bundle.items.sorted_rows, keys)
