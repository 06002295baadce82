"""Popularity orders from what people took: overall, per surface, and per demographic segment."""

import numpy as np

from engine.bundle.popularity import Popularity, PopularityList, segment_key, surface_key
from engine.data.dataset import Dataset
from engine.features.people import first_of_each
from engine.training.segments import OVERALL_STRENGTH, Segments, smooth
from engine.types import Demographics, Float64Array, Int32Array

LIST_SIZE = 1000
# In all that follows, what one person did with one item is one interaction.
# A surface with fewer interactions has nothing to say that the overall order does not say better.
MIN_EVIDENCE = 50
# Interactions that the overall order is worth on a surface (a Dirichlet prior's strength).
PARENT_STRENGTH = 100.0
# Lists a level, for the segments with the most people: each costs memory, and time whenever live counts are read.
# A person of another segment gets the list of a coarser one.
MAX_SEGMENTS = 256


def build_popularity(dataset: Dataset) -> Popularity:
    """Every list of a bundle from the positive events of a data set.

    A score is an item's share of the interactions, in which each person counts once an item whatever they do with it
    (engine.features.people; on the list of a surface, once there), smoothed towards the coarser level, so that a
    handful of events cannot upend a list (shrinkage). How strongly is measured on the data's own people for segments,
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
        person = Demographics(
            **{name: dataset.vocabularies[name][code - 1] for name, code in zip(level, codes, strict=True)}
        )
        key = segment_key(level, person)
        assert key is not None
        lists[key] = _top(shares)
    return lists


def _top(shares: Float64Array) -> PopularityList:
    rows = np.argsort(-shares, kind="stable")[:LIST_SIZE]
    return PopularityList(rows.astype(np.int32), shares[rows].astype(np.float32))
