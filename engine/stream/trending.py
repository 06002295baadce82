"""What live counts make of a bundle's popularity: the ranker's counts, and lists in which the present has its say.

Pure. The live counts are those of the stream processor (engine.stream.popularity), read as arrays: a hundred thousand
items are summed and blended in some tens of milliseconds, most of it with the interpreter lock released.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.bundle.popularity import Popularity, PopularityList
from engine.features.schema import ITEM_DYNAMIC
from engine.stream.popularity import LIFETIMES_MS, LIVE_WINDOWS, OVERALL
from engine.types import Float32Array, Float64Array, Int32Array, Int64Array

# What is left of one event after three weeks of silence; below it an item has no live counts.
FLOOR: Final = 0.05
# The window whose counts move the lists: short enough for a trend, long enough that the hour of the day is not one.
_LIST_WINDOW: Final = LIVE_WINDOWS.index("24h")
# For each column of ITEM_DYNAMIC the live window that it is held against.
_LIVE_COLUMNS: Final = tuple(min(column, len(LIVE_WINDOWS) - 1) for column in range(len(ITEM_DYNAMIC)))
# Live events that the whole of the present is worth in the list of a surface or segment, beside that list's own: as in
# training (engine.training.popular).
_PARENT_STRENGTH: Final = 100.0
# Names of lists whose scopes are remembered: they are asked for every second, and reading the names took longer than
# all else. A bundle has some hundreds.
_KNOWN_LISTS: Final = 4096
# Of what trends everywhere, this much is put before each list; no list is longer in a bundle.
_TRENDS: Final = 1000


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """Decayed counts as of one moment. keys: int64 (n,), ascending, unique. counts: float64 (n, windows)."""

    keys: Int64Array
    counts: Float64Array


@dataclass(frozen=True, slots=True)
class Evidence:
    """Live events in one list. rows: int64 (n,), ascending, unique. events: float64 (n,), decayed, above 0."""

    rows: Int64Array
    events: Float64Array

    @staticmethod
    def none() -> "Evidence":
        return Evidence(np.empty(0, np.int64), np.empty(0, np.float64))

    def at(self, rows: Int64Array) -> Float64Array:
        """The events of these rows, 0 for one that has none: float64 (m,). Cost: a binary search a row."""
        if not len(self.rows):
            return np.zeros(len(rows))
        position = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        found: Float64Array = np.where(self.rows[position] == rows, self.events[position], 0.0)
        return found

    def head(self, limit: int) -> "Evidence":
        """The `limit` rows with the most events."""
        if len(self.rows) <= limit:
            return self
        kept = np.sort(np.argsort(-self.events, kind="stable")[:limit])
        return Evidence(self.rows[kept], self.events[kept])


def sum_entries(keys: Int64Array, entries: npt.NDArray[np.void], now_ms: int) -> ItemCounts:
    """Counts of each item over all partitions, as of a moment; what is below FLOOR in the longest window is left out.

    Args:
        keys: int64 (n,), in any order, repeating where an item is in several partitions.
        entries: engine.stream.popularity.ENTRY_DTYPE (n,).

    Cost: one sort; 80,000 entries take about 15 ms.
    """
    elapsed_ms = np.maximum(now_ms - entries["reference_ms"], 0)
    counts = entries["counts"] * np.exp(-elapsed_ms[:, None] / LIFETIMES_MS)
    unique, item = np.unique(keys, return_inverse=True)
    sums = [np.bincount(item, counts[:, window], len(unique)) for window in range(len(LIVE_WINDOWS))]
    return _above_floor(unique, np.stack(sums, axis=1))


def decay(counts: ItemCounts, elapsed_ms: int) -> ItemCounts:
    """The same counts some time later, with nothing new."""
    return _above_floor(counts.keys, counts.counts * np.exp(-max(0, elapsed_ms) / LIFETIMES_MS))


def _above_floor(keys: Int64Array, counts: Float64Array) -> ItemCounts:
    kept = counts[:, -1] >= FLOOR
    return ItemCounts(keys[kept], counts[kept])


def dynamic_rows(base: Float32Array, counts: Float64Array) -> Float32Array:
    """The ranker's counts of n items: the larger of what the bundle knows and what is live, column by column.

    The larger, and not the sum: a bundle is trained on the archive of the same events, and whatever is in both would
    count twice. Either alone is a part of what happened, so that the larger one is the better bound, and an event can
    only ever raise an item. The bundle's counts stay as of the end of its data, as those of all other items do: what
    has gone out of fashion since shows with the next bundle. The windows longer than the live ones (30 d, all) count
    at least what happened in the longest live one.

    Args:
        base: float32 (n, len(ITEM_DYNAMIC)), log1p, the bundle's. counts: float64 (n, windows), not logarithms.

    Returns:
        float32 (n, len(ITEM_DYNAMIC)).
    """
    return np.maximum(base, np.log1p(counts[:, _LIVE_COLUMNS]).astype(np.float32))


def evidence_of(rows: Int64Array, counts: Float64Array) -> Evidence:
    """The events that move a list. rows: int64 (n,), -1 for an item that is not in the bundle; counts (n, windows)."""
    known = np.flatnonzero(rows >= 0)
    order = known[np.argsort(rows[known], kind="stable")]
    return Evidence(rows[order], counts[order, _LIST_WINDOW])


@lru_cache(_KNOWN_LISTS)
def scopes_of_list(name: str) -> tuple[str, ...]:
    """The scopes that the processor counts and that bear on a list of a bundle: one for each of its values."""
    return tuple(json.dumps({key: value}) for key, value in json.loads(name).items())


def scopes_of_popularity(popularity: Popularity) -> tuple[str, ...]:
    """Every scope that bears on any list, the overall one first."""
    return tuple(dict.fromkeys((OVERALL, *(scope for name in popularity.lists for scope in scopes_of_list(name)))))


def joint_evidence(parts: Sequence[Evidence], overall: Evidence) -> Evidence:
    """Events of users who share several values, from those of each value: the processor counts the values alone.

    Taken as independent given the item, e.g. P(age, location | item) = P(age | item) P(location | item), and never
    more than the smallest part.
    """
    if len(parts) == 1:
        return parts[0]
    rows = parts[0].rows
    for part in parts[1:]:
        rows = np.intersect1d(rows, part.rows, assume_unique=True)
    each = np.stack([part.at(rows) for part in parts])
    # Lists are cut at different lengths: an item may be in a segment's and no longer in the overall one.
    everyone = np.maximum(overall.at(rows), each.max(axis=0))
    return Evidence(rows, each.prod(axis=0) / everyone ** (len(parts) - 1))


def blend(
    popularity: Popularity, positions: Int32Array, live: Mapping[str, Evidence], prior_events: float
) -> Popularity:
    """A bundle's lists with live events counted in; each holds at least what it held, the overall one every item.

    A bundle's shares count as so many events (a Dirichlet prior) that the first item of a list is worth
    `prior_events` of them: an item that nobody knew needs as many live events to get there, whatever the size of the
    catalogue, and a handful cannot upend a list. In a surface's or segment's list its own live events count in full,
    and what is live overall counts as up to _PARENT_STRENGTH events, in proportion to how much of it there is.
    Scores stay shares of (prior and live) events.

    Args:
        popularity: the bundle's own lists, not an earlier blend.
        positions: int32 (rows,), where each row is in the overall list; -1 for an item that came after the bundle,
            which counts as its last one.
        live: evidence by scope; a scope that is not there has none.
        prior_events: above 0.

    Returns:
        New lists; the ones of the bundle where there is no evidence at all.

    Cost: O(items) for the overall list, and O(list + its evidence) for each other one, about half a millisecond.
    Source: shrinkage as in engine.training.popular.
    """
    overall = live.get(OVERALL, Evidence.none())
    if not len(overall.rows):
        return popularity
    everything = popularity.overall
    strength = _strength(everything, prior_events)
    total = float(overall.events.sum())
    at = positions[overall.rows]
    scores = strength * _shares(everything, at) + overall.events
    lists = {}
    trends = overall.head(_TRENDS)
    pull = _PARENT_STRENGTH / (strength + total)
    for name, known in popularity.lists.items():
        own = joint_evidence([live.get(scope, Evidence.none()) for scope in scopes_of_list(name)], overall)
        rows = _union(own.rows, trends.rows)
        lists[name] = _blend_list(
            known,
            rows,
            own.at(rows) + pull * trends.at(rows),
            float(own.events.sum()) + pull * total,
            _shares(everything, positions[rows]),
            prior_events,
        )
    return Popularity(_merge(everything, at[at >= 0], overall.rows, scores, strength, total), lists)


def _shares(everything: PopularityList, positions: Int32Array) -> Float32Array:
    """The overall share of the items at these positions, and the last listed share for -1."""
    return np.where(positions >= 0, everything.scores[positions], everything.scores[-1]).astype(np.float32)


def _union(first: Int64Array, second: Int64Array) -> Int64Array:
    """Of two ascending arrays; a stable sort merges them, where np.union1d would hash."""
    both = np.sort(np.concatenate([first, second]), kind="stable")
    union: Int64Array = both[np.diff(both, prepend=-1) != 0]
    return union


def _strength(known: PopularityList, prior_events: float) -> float:
    """How many events all of a bundle's shares are worth."""
    return prior_events / float(known.scores[0]) if len(known.rows) else prior_events


def _blend_list(
    known: PopularityList,
    rows: Int64Array,
    events: Float64Array,
    total: float,
    shares: Float32Array,
    prior_events: float,
) -> PopularityList:
    """One list with the events of these rows; an unlisted row's share is its overall one, at most the last listed."""
    if not len(known.rows):
        return known
    strength = _strength(known, prior_events)
    by_row = np.argsort(known.rows, kind="stable")
    found = np.minimum(np.searchsorted(known.rows, rows, sorter=by_row), len(known.rows) - 1)
    at = by_row[found]
    listed = known.rows[at] == rows
    share = np.where(listed, known.scores[at], np.minimum(shares, known.scores[-1]))
    score = strength * share + events
    # No list grows past twice its length.
    new = np.flatnonzero(~listed)
    new = new[np.argsort(-score[new], kind="stable")[: len(known.rows)]]
    kept = np.sort(np.concatenate([np.flatnonzero(listed), new]))
    return _merge(known, at[listed], rows[kept], score[kept], strength, total)


def _merge(
    known: PopularityList,
    moved: npt.NDArray[np.integer],
    rows: Int64Array,
    scores: Float64Array,
    strength: float,
    total: float,
) -> PopularityList:
    """A list without the positions `moved`, with `rows` put in by their scores (in events); ties go to the bundle."""
    stay = np.ones(len(known.rows), np.bool_)
    stay[moved] = False
    rest_rows, rest_scores = known.rows[stay], known.scores[stay]
    order = np.argsort(-scores, kind="stable")
    rows, scores = rows[order].astype(np.int32), (scores[order] / (strength + total)).astype(np.float32)
    rest_scores = rest_scores * np.float32(strength / (strength + total))
    place = np.searchsorted(-rest_scores, -scores, side="right")
    return PopularityList(np.insert(rest_rows, place, rows), np.insert(rest_scores, place, scores))
