"""The current items of one bundle: its own rows, as changed since it was made, then the rows of new items."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl

from engine.bundle.bundle import ITEM_TABLE_FILE, Bundle
from engine.bundle.spare_rows import map_with_spare_rows
from engine.catalog.changes import ItemState
from engine.catalog.content import canonical, to_frame
from engine.catalog.embed import ItemEmbedder
from engine.catalog.new_items import NewItems
from engine.catalog.visibility import Visibility
from engine.config.experiments import RULES_OFF
from engine.features.item_attributes import ImputationMeans, item_attributes
from engine.kernels.membership import rows_of_keys
from engine.logs import OncePerInterval
from engine.rules.active import ActiveRules
from engine.rules.compiled import CompiledRules
from engine.rules.conflicts import check_catalogue
from engine.rules.schema import Rules
from engine.types import Float32Array, Int64Array, RecommendQuery, UInt8Array
from engine_client.v1 import catalog_pb2 as pb

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=30.0))

_BITS: Final = 8


class LiveCatalogue:
    """Belongs to one opened bundle and goes with it. Implements engine.stages.eligibility.Catalogue.

    Any number of threads may read; one at a time may `apply` or `set_rules`. Readers see a change row by row: a new row
    is written in full before any bitmap shows it; a changed one may be half old for one score.

    item_table: float32 (rows, schema.table_width), the bundle's rows from 0, new items' from `new_items.first_row`.
    item_dynamic: float32 (rows, len(ITEM_DYNAMIC)), live counts of the same rows.
    nearline_vectors: float32 (capacity, dim), contiguous, for exact search; row 0 is `new_items.first_row`.
    sequence: the last change of the overlay that was applied.
    row_listeners: called in the writer's thread with the rows (int64 (n,)) of item_table or item_dynamic that were
        written, to keep tables on a device equal to these.
    """

    def __init__(
        self,
        bundle: Bundle,
        embed: ItemEmbedder,
        surfaces: Sequence[str],
        fresh_capacity: int,
        rules: Rules,
        variant_rules: Mapping[str, Rules] | None = None,
    ) -> None:
        """variant_rules: further rules, by the name that variants call them by; their deny and allow are not read."""
        self.bundle = bundle
        self._embed = embed
        # Both ends at whole bytes, so that a bitmap's two parts are views of it.
        first_row = _whole_bytes(len(bundle.items))
        self.row_count = first_row + _whole_bytes(fresh_capacity)
        self.new_items = NewItems.none(first_row)
        self.item_table = map_with_spare_rows(bundle.path / ITEM_TABLE_FILE, self.row_count)
        self.item_dynamic = np.zeros((self.row_count, bundle.item_dynamic.shape[1]), np.float32)
        self.item_dynamic[: len(bundle.items)] = bundle.item_dynamic
        self.nearline_vectors = np.zeros((self.row_count - first_row, bundle.schema.embedding_dim), np.float32)
        self.sequence = 0
        self.row_listeners: list[Callable[[Int64Array], None]] = []
        self._new_item_ids: list[str] = []
        # What the overlay says of rows, for when rules are compiled again.
        self._contents: dict[int, pb.StoredItem] = {}
        items = self._bundle_items()
        self._means = ImputationMeans.of(items, bundle.schema.epoch_ms)
        self.rules = CompiledRules(rules, items, self.row_count)
        self.variant_rules: Mapping[str, Rules] = variant_rules or {}
        self._variant_compiled = {
            name: CompiledRules(more, items, self.row_count) for name, more in self.variant_rules.items()
        }
        self.visibility = Visibility(bundle.items, list(surfaces), self.row_count, self.rules)

    @property
    def item_vectors(self) -> Float32Array:
        """float32 (rows, dim): the retrieval vectors, a strided view of the item table."""
        return self.item_table[:, : self.bundle.schema.embedding_dim]

    def of_surface(self, surface: str) -> UInt8Array:
        """The kept bitmap of what may be shown there, read-only: uint8 (rows / 8,)."""
        return self.visibility.of_surface(surface)

    def active_rules(self, query: RecommendQuery, age_group: str, rules: str) -> ActiveRules:
        """The rules that apply to a request; what they place is as `rules` says: theirs (""), "off", or a variant's.

        Raises KeyError for rules that this catalogue was not made with.
        """

        def applying(compiled: CompiledRules) -> ActiveRules:
            return compiled.for_request(
                query.surface, country=query.country, device=query.device, age_group=age_group, time_ms=query.time_ms
            )

        active = applying(self.rules)
        if not rules:
            return active
        return active.placing_as(None if rules == RULES_OFF else applying(self._variant_compiled[rules]))

    def rows(self, keys: Int64Array) -> Int64Array:
        """int64 (n,): the row of each item key, -1 for an unknown one."""
        items, new = self.bundle.items, self.new_items
        rows = rows_of_keys(items.sorted_keys, items.sorted_rows, keys)
        if new.count:
            unknown = np.flatnonzero(rows < 0)
            if len(unknown):
                rows[unknown] = rows_of_keys(new.sorted_keys, new.sorted_rows, keys[unknown])
        return rows

    def unknown(self, keys: Int64Array) -> list[bool]:
        """Whether an item of each key (int64 (n,)) has no row yet."""
        unknown: list[bool] = (self.rows(keys) < 0).tolist()
        return unknown

    @property
    def spare_capacity(self) -> int:
        """How many more new items fit."""
        return len(self.nearline_vectors) - self.new_items.count

    def ids(self, rows: Int64Array) -> tuple[str, ...]:
        """The ids of n rows, in their order. Cost: O(n)."""
        first = self.new_items.first_row
        new = np.flatnonzero(rows >= first)
        if not len(new):
            return self.bundle.items.ids(rows)
        ids = list(self.bundle.items.ids(np.where(rows >= first, 0, rows)))
        for position in new.tolist():
            ids[position] = self._new_item_ids[int(rows[position]) - first]
        return tuple(ids)

    def apply(self, states: Sequence[ItemState], sequence: int) -> None:
        """Show what the overlay holds of these items, as of `sequence`. A second call changes nothing.

        New items beyond the capacity are left out and logged. Cost: a few µs for an item whose stock changed, some 50
        µs for one whose content did, including the item tower for new items.
        """
        self._make_rows(states)
        rows = self.rows(np.fromiter((state.key for state in states), np.int64, len(states)))
        known = np.flatnonzero(rows >= 0)
        changed = [states[position] for position in known.tolist()]
        rows = rows[known]
        content_rows, frame = self._changed_content(rows, changed)
        if len(content_rows):
            self._write_content(content_rows, frame)
            for compiled in (self.rules, *self._variant_compiled.values()):
                compiled.update_rows(content_rows, frame)
        moved = self._move_vectors(rows, changed)
        self.notify_row_listeners(np.concatenate([content_rows, moved]))
        self.visibility.update(rows, changed)
        self.sequence = sequence

    def notify_row_listeners(self, rows: Int64Array) -> None:
        """Report written rows (int64 (n,)) to the listeners. Failures are logged: a stale copy must stop nothing."""
        if not len(rows):
            return
        for listener in self.row_listeners:
            try:
                listener(rows)
            except Exception:  # whatever a device may raise
                log.exception("a copy of the item tables is stale")

    def check_rules(self, rules: Rules) -> None:
        """Hold rules against the items, and warn of what is hardly meant. Raises RulesError where they clash."""
        for doubt in check_catalogue(rules, self._bundle_items()):
            log.warning("%s: %s", rules.path, doubt)

    def compile_rules(self, rules: Rules) -> CompiledRules:
        """Rules over the bundle's own items, for `set_rules`. Reads nothing that changes, so that changes go on.

        Raises RulesError as `check_rules` does. Cost: a pass over the catalogue for each of their selectors.
        """
        self.check_rules(rules)
        return CompiledRules(rules, self._bundle_items(), self.row_count)

    def set_rules(self, compiled: CompiledRules) -> None:
        """Serve by other rules, those of `compile_rules`. Cost: milliseconds, and what the changed items cost."""
        if self._contents:
            rows, frame = np.fromiter(self._contents, np.int64), to_frame([one.item for one in self._contents.values()])
            compiled.update_rows(rows, frame)
        # From here on: a request that began with the old rules ends with them, but for the last look at the bitmap.
        self.visibility.set_rules(compiled)
        self.rules = compiled

    def _bundle_items(self) -> pl.DataFrame:
        """The bundle's canonical columns; made when asked for, since they would take 100 MB at a million items."""
        return canonical(self.bundle.items.frame())

    def _make_rows(self, states: Sequence[ItemState]) -> None:
        """Rows for items that have content and none yet. What is in them comes later, and before they are shown."""
        arrived = [state for state in states if state.stored is not None and not state.stored.removed]
        unknown = self.unknown(np.fromiter((state.key for state in arrived), np.int64, len(arrived)))
        new = [state for state, is_new in zip(arrived, unknown, strict=True) if is_new]
        if len(new) > self.spare_capacity:
            log.error(
                "no capacity for %d new items; a new bundle that holds them frees capacity",
                len(new) - self.spare_capacity,
            )
            new = new[: self.spare_capacity]
        if new:
            self._new_item_ids += [state.stored.item.item_id for state in new if state.stored is not None]
            self.new_items = self.new_items.with_keys(np.fromiter((state.key for state in new), np.int64, len(new)))

    def _changed_content(self, rows: Int64Array, states: Sequence[ItemState]) -> tuple[Int64Array, pl.DataFrame]:
        """The rows whose content is not what it was, and their columns as they are now; removals change nothing."""
        present: list[tuple[int, pb.Item]] = []
        reverted: list[int] = []
        for row, state in zip(rows.tolist(), states, strict=True):
            if state.stored is None:
                if self._contents.pop(row, None) is not None and row < len(self.bundle.items):
                    reverted.append(row)
            elif not state.stored.removed and self._contents.get(row) is not state.stored:
                self._contents[row] = state.stored
                present.append((row, state.stored.item))
        frame = to_frame([item for _, item in present])
        if reverted:
            frame = pl.concat([frame, self._bundle_items()[reverted]])
        return np.array([*(row for row, _ in present), *reverted], np.int64), frame

    def _write_content(self, rows: Int64Array, frame: pl.DataFrame) -> None:
        columns = self.bundle.schema.item_columns
        for name, values in item_attributes(frame, self.bundle.schema.epoch_ms, self._means).items():
            self.item_table[rows, columns[name][0]] = values
        # The main index has its own copy of the bundle's vectors: only new items' vectors can follow the content.
        new = np.flatnonzero(rows >= self.new_items.first_row)
        if len(new):
            self._set_vectors(rows[new], self._embed(frame[new]))

    def _move_vectors(self, rows: Int64Array, states: Sequence[ItemState]) -> Int64Array:
        """Put vectors that interactions have moved in the place of those from content; returns their rows."""
        generation = self.bundle.manifest.generation
        moved: list[int] = []
        for row, state in zip(rows.tolist(), states, strict=True):
            vector = state.vectors.get(generation)
            if vector is not None and row >= self.new_items.first_row and len(vector) == self.nearline_vectors.shape[1]:
                self._set_vectors(np.array([row]), vector[None])
                moved.append(row)
        return np.array(moved, np.int64)

    def _set_vectors(self, rows: Int64Array, vectors: Float32Array) -> None:
        self.nearline_vectors[rows - self.new_items.first_row] = vectors
        self.item_vectors[rows] = vectors


def _whole_bytes(count: int) -> int:
    return -(-count // _BITS) * _BITS
