"""Popularity orders from interactions: overall, per surface, and per demographic segment."""

import numpy as np
import numpy.typing as npt

from engine.bundle.popularity import SEGMENT_LEVELS, Popularity, PopularityList, segment_key, surface_key
from engine.data.dataset import Dataset
from engine.types import Demographics

LIST_SIZE = 1000
# A segment with fewer interactions has nothing to say that its parent does not say better.
MIN_EVIDENCE = 50
# Interactions that the parent's opinion is worth inside a segment (a Dirichlet prior's strength).
PARENT_STRENGTH = 100.0

# Where a segment's shares are drawn towards; the levels that are not named here go to the overall order.
_PARENTS = {
    ("age_group", "location", "signup_source"): ("age_group", "location"),
    ("age_group", "location"): ("age_group",),
}


def build_popularity(dataset: Dataset) -> Popularity:
    """Every list of a bundle from the positive events of a data set.

    A score is an item's share of the interactions, smoothed towards the coarser level, so that a handful of events
    cannot upend a list (shrinkage). Ties keep row order.

    Cost: O(events + lists * items) time.
    """
    events = dataset.interactions.positive()
    counts = np.bincount(events.rows, minlength=dataset.item_count)
    overall = _smooth(counts, np.full(dataset.item_count, 1.0 / dataset.item_count))
    order = np.argsort(-overall, kind="stable")
    lists: dict[str, PopularityList] = {}
    for code, surface in enumerate(dataset.vocabularies["surface"], start=1):
        rows = events.rows[events.surfaces == code]
        if len(rows) >= MIN_EVIDENCE:
            lists[surface_key(surface)] = _top(_smooth(np.bincount(rows, minlength=dataset.item_count), overall))
    lists |= _segment_lists(dataset, events.users, events.rows, overall)
    everything = PopularityList(order.astype(np.int32), overall[order].astype(np.float32))
    return Popularity(everything, lists)


def _segment_lists(
    dataset: Dataset, users: npt.NDArray[np.int32], rows: npt.NDArray[np.int32], overall: npt.NDArray[np.float64]
) -> dict[str, PopularityList]:
    names = SEGMENT_LEVELS[0]
    values = dict(zip(names, dataset.demographic_codes()[users].T, strict=True))
    # Coarse levels first: a finer one shrinks towards them. Only the finest chain's shares are looked up again.
    shares: dict[str, npt.NDArray[np.float64]] = {}
    lists: dict[str, PopularityList] = {}
    for level in sorted(SEGMENT_LEVELS, key=len):
        codes = np.stack([values[name] for name in level], axis=1)
        known = (codes > 0).all(axis=1)
        if not known.any():
            continue
        segments, members, sizes = np.unique(codes[known], axis=0, return_inverse=True, return_counts=True)
        by_segment = np.split(rows[known][np.argsort(members.ravel(), kind="stable")], np.cumsum(sizes)[:-1])
        for segment, segment_rows in zip(segments, by_segment, strict=True):
            if len(segment_rows) < MIN_EVIDENCE:
                continue
            person = Demographics(
                **{name: dataset.vocabularies[name][code - 1] for name, code in zip(level, segment, strict=True)}
            )
            parent = segment_key(_PARENTS.get(level, ()), person) or ""
            share = _smooth(np.bincount(segment_rows, minlength=dataset.item_count), shares.get(parent, overall))
            key = segment_key(level, person)
            assert key is not None
            lists[key] = _top(share)
            if level in _PARENTS.values():
                shares[key] = share
    return lists


def _smooth(counts: npt.NDArray[np.int64], parent: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    share: npt.NDArray[np.float64] = (counts + PARENT_STRENGTH * parent) / (counts.sum() + PARENT_STRENGTH)
    return share


def _top(shares: npt.NDArray[np.float64]) -> PopularityList:
    rows = np.argsort(-shares, kind="stable")[:LIST_SIZE]
    return PopularityList(rows.astype(np.int32), shares[rows].astype(np.float32))
