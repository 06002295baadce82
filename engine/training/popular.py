"""Popularity orders from what users took: overall, per surface, and per demographic segment.

Of a segment counts what its users tell more than those of coarser segments do.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.bundle.popularity import SEGMENT_LEVELS, Popularity, PopularityList, segment_key, surface_key
from engine.data.dataset import Dataset
from engine.features.schema import DEMOGRAPHICS
from engine.features.user_counts import first_of_each
from engine.types import BoolArray, Demographics, Float64Array, Int32Array, Int64Array

# Interactions that it is worth that any item may be taken, in the overall order.
OVERALL_STRENGTH = 100.0
# Tried for each level, in interactions. The last is more than any segment has: such a level equals its parents.
STRENGTHS = np.geomspace(10.0, 1e8, 15)

# The coarser levels whose mean a level is drawn towards; the ones that are not named go to the overall order.
_PARENTS: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {
    DEMOGRAPHICS: (("age_group", "location"), ("signup_source",)),
    ("age_group", "location"): (("age_group",), ("location",)),
}


def smooth(counts: npt.NDArray[np.integer], parent: Float64Array, strength: float) -> Float64Array:
    """Shares of counts with a Dirichlet prior that is worth `strength` interactions: float64, the shape of counts."""
    share: Float64Array = (counts + strength * parent) / (counts.sum() + strength)
    return share


@dataclass(frozen=True, slots=True)
class _Level:
    """codes: int64 (segments, names), demographic codes. of_user: int64 (users,), a segment or -1 where unknown."""

    names: tuple[str, ...]
    codes: Int64Array
    of_user: Int64Array
    strength: float


@dataclass(frozen=True, slots=True)
class Segments:
    """The demographic levels of a data set, coarse ones first, each with the strength of its prior.

    A segment's shares are its counts smoothed towards the mean of its coarser levels, which are smoothed in turn,
    down to the overall order. The strength of a level is the one of STRENGTHS under which users' events are the
    most likely when each user's own are left out of every count (everyone weighing the same, an item counting once
    a user): what the list will be asked for is a user whom it does not know. So a tiny segment, or an attribute
    that says nothing of taste, equals its parents, and there is no size at which a segment starts to count.

    users, rows: int (n,), the events. overall: float64 (items,), shares. levels: those that anybody is known at.

    Source: Dirichlet smoothing, Zhai & Lafferty, SIGIR 2001, with their leave-one-out choice of the strength (SIGIR
    2002), here leaving out a user instead of a word.
    """

    users: npt.NDArray[np.integer]
    rows: npt.NDArray[np.integer]
    overall: Float64Array
    levels: dict[tuple[str, ...], _Level] = field(default_factory=dict)

    @staticmethod
    def of(
        demographic_codes: Int64Array,
        users: npt.NDArray[np.integer],
        rows: npt.NDArray[np.integer],
        overall: Float64Array,
    ) -> "Segments":
        """Find the segments that have events and measure each level's strength.

        Args:
            demographic_codes: int64 (users, 3) in the order of DEMOGRAPHICS, 0 for unknown.

        Cost: O(n log n) a level.
        """
        segments = Segments(users, rows, overall)
        if not len(users):
            return segments
        active = np.zeros(len(demographic_codes), np.bool_)
        active[users] = True
        left_out = _LeftOut.of(users, rows, len(overall))
        # What others took, for each pair of a user and an item: known for coarse levels when finer ones need it.
        everyone = np.zeros(len(demographic_codes), np.int64)
        base = left_out.smoothed(everyone, 1.0 / len(overall), OVERALL_STRENGTH)
        shares: dict[tuple[str, ...], Float64Array] = {}
        for names in sorted(SEGMENT_LEVELS, key=len):
            values = demographic_codes[:, [DEMOGRAPHICS.index(name) for name in names]]
            known = active & (values > 0).all(axis=1)
            if not known.any():
                continue
            of_user = np.full(len(values), -1)
            codes, of_user[known] = _distinct(values[known])
            parents = [shares[parent] for parent in _PARENTS.get(names, ())]
            parent = np.mean(parents, axis=0) if parents else base
            tried = [left_out.smoothed(of_user, parent, strength) for strength in STRENGTHS]
            likelihoods = [left_out.mean_log(share, known) for share in tried]
            # The last of equals: where nothing tells them apart, the parents are as good.
            best = len(tried) - 1 - int(np.argmax(likelihoods[::-1]))
            shares[names] = tried[best]
            segments.levels[names] = _Level(names, codes, of_user, float(STRENGTHS[best]))
        return segments

    def shares(self, limit: int) -> Iterator[tuple[tuple[str, ...], Int64Array, Float64Array]]:
        """Of each level the `limit` segments with the most users: its level, its codes, its shares (items,).

        Cost: O(n) a level and O(items) a segment; the shares of coarse segments are kept meanwhile.
        """
        kept: dict[tuple[tuple[str, ...], int], Float64Array] = {}
        for names, level in self.levels.items():
            of_event = level.of_user[self.users]
            order = np.argsort(of_event, kind="stable")
            edges = np.searchsorted(of_event[order], np.arange(len(level.codes) + 1))
            users = np.bincount(level.of_user[level.of_user >= 0], minlength=len(level.codes))
            for segment in np.argsort(-users, kind="stable")[:limit].tolist():
                rows = self.rows[order[edges[segment] : edges[segment + 1]]]
                anyone = int(np.argmax(level.of_user == segment))
                parents = [
                    kept.get((parent, int(self.levels[parent].of_user[anyone])), self.overall)
                    for parent in _PARENTS.get(names, ())
                ]
                parent = np.mean(parents, axis=0) if parents else self.overall
                shares = smooth(np.bincount(rows, minlength=len(self.overall)), parent, level.strength)
                if any(names in finer for finer in _PARENTS.values()):
                    kept[names, segment] = shares
                yield names, level.codes[segment], shares


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """Pairs of a user and an item that they took. All int64 (pairs,): users, rows, counts; totals: (users,)."""

    users: Int64Array
    rows: Int64Array
    counts: Int64Array
    totals: Int64Array
    item_count: int

    @staticmethod
    def of(users: npt.NDArray[np.integer], rows: npt.NDArray[np.integer], item_count: int) -> "_LeftOut":
        keys, counts = np.unique(users.astype(np.int64) * item_count + rows, return_counts=True)
        return _LeftOut(keys // item_count, keys % item_count, counts, np.bincount(users), item_count)

    def smoothed(self, of_user: Int64Array, parent: Float64Array | float, strength: float) -> Float64Array:
        """float64 (pairs,): the item's share among the other users of the user's segment; 0 without a segment."""
        segments = of_user[self.users]
        known = segments >= 0
        _, cell = np.unique(segments * self.item_count + self.rows, return_inverse=True)
        others = np.bincount(cell, self.counts)[cell] - self.counts
        sizes = np.bincount(segments[known], self.counts[known], minlength=int(segments.max(initial=-1)) + 1)
        total = sizes[segments] - self.totals[self.users] if len(sizes) else np.zeros(len(segments))
        return np.where(known, (others + strength * np.asarray(parent)) / (np.maximum(total, 0) + strength), 0.0)

    def mean_log(self, shares: Float64Array, known: BoolArray) -> float:
        """The mean over users (users,) that are known of the mean over their pairs of log shares (pairs,).

        Pairs whose item nobody else took are left out: they tell of the overall order's long tail, which no segment
        knows anything of, and would speak against every segment alike.
        """
        asked = known[self.users] & (np.bincount(self.rows, self.counts)[self.rows] > self.counts)
        distinct = np.bincount(self.users[asked], minlength=len(known))
        sums = np.bincount(self.users[asked], np.log(shares[asked]), minlength=len(known))
        users = distinct > 0
        return float((sums[users] / distinct[users]).mean()) if users.any() else 0.0


def _distinct(values: Int64Array) -> tuple[Int64Array, Int64Array]:
    codes, places = np.unique(values, axis=0, return_inverse=True)
    return codes, places.ravel()


LIST_SIZE = 1000
# In all that follows, what one user did with one item is one interaction.
# A surface with fewer interactions has nothing to say that the overall order does not say better.
MIN_EVIDENCE = 50
# Interactions that the overall order is worth on a surface (a Dirichlet prior's strength).
PARENT_STRENGTH = 100.0
# Lists a level, for the segments with the most users: each costs memory, and time whenever live counts are read.
# A user of another segment gets the list of a coarser one.
MAX_SEGMENTS = 256


def build_popularity(dataset: Dataset) -> Popularity:
    """Every list of a bundle from the positive events of a data set.

    A score is an item's share of the interactions, in which each user counts once an item whatever they do with it
    (engine.features.user_counts; on the list of a surface, once there), smoothed towards the coarser level, so that a
    handful of events cannot upend a list (shrinkage). How strongly is measured on the data's own users for segments,
    see Segments: a segment about which there is little to know equals its parents. Ties keep row order.

    Cost: O(events log events + lists * items) time.
    """
    events = dataset.interactions.positive()
    taken = first_of_each(events.users, events.rows)
    counts = np.bincount(events.rows[taken], minlength=dataset.item_count)
    overall = smooth(counts, np.full(dataset.item_count, 1.0 / dataset.item_count), OVERALL_STRENGTH)
    order = np.argsort(-overall, kind="stable")
    lists: dict[str, PopularityList] = {}
    for code, surface in enumerate(dataset.vocabularies["surface"], start=1):
        there = np.flatnonzero(events.surfaces == code)
        rows = events.rows[there[first_of_each(events.users[there], events.rows[there])]]
        if len(rows) >= MIN_EVIDENCE:
            counts = np.bincount(rows, minlength=dataset.item_count)
            lists[surface_key(surface)] = _top(smooth(counts, overall, PARENT_STRENGTH))
    everything = PopularityList(order.astype(np.int32), overall[order].astype(np.float32))
    return Popularity(everything, lists | _segment_lists(dataset, events.users[taken], events.rows[taken], overall))


def _segment_lists(
    dataset: Dataset, users: Int32Array, rows: Int32Array, overall: Float64Array
) -> dict[str, PopularityList]:
    segments = Segments.of(dataset.demographic_codes(), users, rows, overall)
    lists: dict[str, PopularityList] = {}
    for level, codes, shares in segments.shares(MAX_SEGMENTS):
        user = Demographics(
            **{name: dataset.vocabularies[name][code - 1] for name, code in zip(level, codes, strict=True)}
        )
        key = segment_key(level, user)
        assert key is not None
        lists[key] = _top(shares)
    return lists


def _top(shares: Float64Array) -> PopularityList:
    rows = np.argsort(-shares, kind="stable")[:LIST_SIZE]
    return PopularityList(rows.astype(np.int32), shares[rows].astype(np.float32))
