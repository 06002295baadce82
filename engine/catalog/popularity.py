"""A bundle's popularity as it is at this moment: the lists that requests read, and the counts that its ranker reads."""

from collections.abc import Mapping

import numpy as np

from engine.bundle.bundle import Bundle
from engine.bundle.popularity import Popularity
from engine.catalog.live import LiveCatalogue
from engine.kernels.membership import assign_rows
from engine.stream.popularity import OVERALL
from engine.stream.trending import ItemCounts, blend, dynamic_rows, evidence_of, scopes_of_popularity
from engine.types import Float32Array, Int64Array


class LivePopularity:
    """Belongs to one opened bundle and goes with it, so that a swap and an update cannot lose each other's work.

    `lists` is replaced as one object: a request that reads it has all lists of one moment. The ranker's counts are
    changed in place while requests read them: a row may be half old and half new for one score, which is no more
    wrong than either. One `apply` at a time.

    scopes: those whose live counts bear on this bundle.
    """

    def __init__(self, bundle: Bundle, catalogue: LiveCatalogue, new_below: float) -> None:
        """new_below: an item after the bundle with fewer live interactions (of about a week) counts as new."""
        self._catalogue = catalogue
        self._known: Popularity = bundle.popularity
        self.scopes = scopes_of_popularity(self._known)
        # The bundle's own counts, for the rows that go back to them; new items have none.
        self._known_dynamic = bundle.item_dynamic
        # The position of each row in the bundle's overall list; -1 for new items, which are in none.
        self._positions = np.full(catalogue.row_count, -1, np.int32)
        self._positions[self._known.overall.rows] = np.arange(len(bundle.items), dtype=np.int32)
        self._changed: Int64Array = np.empty(0, np.int64)
        self.lists: Popularity = self._known
        self._new_below = new_below
        # Bitmap of the rows from catalogue.new_items.first_row: of new items, and of items that are still to come.
        self.new_rows = np.full(len(catalogue.nearline_vectors) // 8, 255, np.uint8)

    def apply(self, live: Mapping[str, ItemCounts], prior_events: float) -> None:
        """Show these live counts, by scope, instead of those of the last call; without any, it is the bundle as it was.

        Items that the catalogue does not hold are left out. Cost: engine.stream.trending.blend, and a write to each row
        of item_dynamic that has live counts or had them.
        """
        rows = {scope: self._catalogue.rows(counts.keys) for scope, counts in live.items()}
        if OVERALL in live:
            self._show_counts(rows[OVERALL], live[OVERALL])
        evidence = {scope: evidence_of(rows[scope], counts.counts) for scope, counts in live.items()}
        self.lists = blend(self._known, self._positions, evidence, prior_events)

    def _show_counts(self, rows: Int64Array, counts: ItemCounts) -> None:
        known = rows >= 0
        rows = rows[known]
        dynamic = self._catalogue.item_dynamic
        silent = np.setdiff1d(self._changed, rows)
        dynamic[silent] = self._known_counts(silent)
        dynamic[rows] = dynamic_rows(self._known_counts(rows), counts.counts[known])
        self._catalogue.notify_row_listeners(np.concatenate([silent, rows]))
        first = self._catalogue.new_items.first_row
        assign_rows(self.new_rows, silent - first, np.ones(len(silent), np.bool_))
        assign_rows(self.new_rows, rows - first, counts.counts[known, -1] < self._new_below)
        self._changed = rows

    def _known_counts(self, rows: Int64Array) -> Float32Array:
        counts = np.zeros((len(rows), self._known_dynamic.shape[1]), np.float32)
        known = rows < len(self._known_dynamic)
        counts[known] = self._known_dynamic[rows[known]]
        return counts
