"""Stage: candidates from popularity, for users of whom too little is known and for slates that ran short."""

import numpy as np

from engine.bundle.popularity import Popularity, PopularityList
from engine.types import Candidates, Demographics, Int64Array, ItemSource, Strategy, UInt8Array
from kernels.membership import clear_rows
from kernels.topk import first_eligible


def popular_candidates(
    popularity: Popularity, demographics: Demographics, surface: str, eligible: UInt8Array, limit: int
) -> tuple[Candidates, Strategy]:
    """The most popular eligible items of the finest road that is known: segment, then surface, then overall.

    Args:
        eligible: packed bitmap of the rows that may be returned; the rows taken here are cleared in it.
        limit: how many; fewer come back only when fewer are eligible.

    Returns:
        The candidates, the finest road's first, and the strategy that this is.
    """
    segment = popularity.of_segment(demographics)
    roads: list[tuple[PopularityList | None, ItemSource]] = [
        (segment, ItemSource.SEGMENT_POPULARITY),
        (popularity.of_surface(surface), ItemSource.SURFACE_POPULARITY),
        (popularity.overall, ItemSource.GLOBAL_POPULARITY),
    ]
    parts: list[Candidates] = []
    for road, source in roads:
        missing = limit - sum(map(len, parts))
        if road is not None and missing > 0:
            parts.append(take_popular(road, eligible, missing, source))
    return Candidates.concat(parts), Strategy.DEMOGRAPHIC if segment is not None else Strategy.POPULARITY


def take_popular(road: PopularityList, eligible: UInt8Array, limit: int, source: ItemSource) -> Candidates:
    """The first `limit` eligible rows of one list; their bits are cleared. Cost: O(list) at worst."""
    positions = first_eligible(road.rows, eligible, limit)
    rows = road.rows[positions].astype(np.int64)
    clear_rows(eligible, rows)
    return Candidates.of(rows, road.scores[positions], source)


def take_first(order: Int64Array, eligible: UInt8Array, limit: int, source: ItemSource) -> Candidates:
    """The same of rows without scores: int64 (n,), best first; they get the score 0."""
    rows = order[first_eligible(order, eligible, limit)]
    clear_rows(eligible, rows)
    return Candidates.of(rows, np.zeros(len(rows), np.float32), source)
