"""Stage: candidates for users of whom too little is known: what is popular among users like them, moved by what they
have done in this session."""

import numpy as np
import xxhash

from engine.bundle.popularity import Popularity, PopularityList
from engine.kernels.membership import clear_rows
from engine.kernels.topk import first_eligible, top_k
from engine.kernels.unit_rows import gather_unit_rows
from engine.stages.diversify import relevance, unit_range
from engine.types import Candidates, Demographics, Float32Array, Int64Array, ItemSource, Strategy, UInt8Array


def popular_candidates(
    popularity: Popularity, demographics: Demographics, surface: str, eligible: UInt8Array, limit: int
) -> tuple[Candidates, Strategy]:
    """The most popular eligible items of the finest popular that is known: segment, then surface, then overall.

    Args:
        eligible: packed bitmap of the rows that may be returned; the rows taken here are cleared in it.
        limit: how many; fewer come back only when fewer are eligible.

    Returns:
        The candidates, the finest popular's first, with scores that never rise, and the strategy that this is.
    """
    segment = popularity.of_segment(demographics)
    lists: list[tuple[PopularityList | None, ItemSource]] = [
        (segment, ItemSource.SEGMENT_POPULARITY),
        (popularity.of_surface(surface), ItemSource.SURFACE_POPULARITY),
        (popularity.overall, ItemSource.GLOBAL_POPULARITY),
    ]
    parts: list[Candidates] = []
    for popular, source in lists:
        missing = limit - sum(map(len, parts))
        if popular is not None and missing > 0:
            parts.append(take_popular(popular, eligible, missing, source))
    joined = Candidates.concat(parts)
    # A coarser list goes on where a finer one ends, however its shares compare with that one's: whoever sorts by score
    # finds them in this order.
    falling = Candidates(joined.rows, np.minimum.accumulate(joined.scores), joined.sources)
    return falling, Strategy.POPULARITY if segment is None else Strategy.DEMOGRAPHIC


def take_popular(popular: PopularityList, eligible: UInt8Array, limit: int, source: ItemSource) -> Candidates:
    """The first `limit` eligible rows of one list; their bits are cleared. Cost: O(list) at worst."""
    positions = first_eligible(popular.rows, eligible, limit)
    rows = popular.rows[positions].astype(np.int64)
    clear_rows(eligible, rows)
    return Candidates.of(rows, popular.scores[positions], source)


def take_first(order: Int64Array, eligible: UInt8Array, limit: int, source: ItemSource) -> Candidates:
    """The same of rows without scores: int64 (n,), best first; they get the score 0."""
    rows = order[first_eligible(order, eligible, limit)]
    clear_rows(eligible, rows)
    return Candidates.of(rows, np.zeros(len(rows), np.float32), source)


def append_backfill(candidates: Candidates, more: Candidates) -> Candidates:
    """Appends candidates, with scores below those of the ones before, so that every stage sees the order."""
    if not len(more):
        return candidates
    falling = np.minimum.accumulate(more.scores)
    top = float(falling[0])
    share = falling / top if top > 0 else np.zeros(len(more), np.float32)
    lowest = float(candidates.scores.min()) if len(candidates) else 1.0
    # Half way down at most: the first of them must not tie with the last of those before.
    scores = lowest * 0.5 * share if lowest > 0 else lowest - 1.0 + 0.5 * share
    return Candidates.concat([candidates, Candidates(more.rows, scores.astype(np.float32), more.sources)])


def rerank_by_session(
    popular: Candidates, near: Candidates, vector: Float32Array, item_vectors: Float32Array, session_weight: float
) -> Candidates:
    """What is popular and what is near the session, in one order.

    The order is by `(1 - w) * popularity + w * nearness`, each brought to [0, 1] over the candidates: logarithms of
    shares for popularity, where an item that no list held counts as the last one, and cosines for nearness.

    Args:
        popular, near: disjoint or not; an item of both keeps what it is in `popular`.
        vector: float32 (dim,), the session's. item_vectors: float32 (rows, dim), may be a strided view.
        session_weight: w, in [0, 1].

    Returns:
        All of them, best first. Scores are exp of the mix minus 1, in (0.36, 1]: positive, and of the same order.

    Cost: O(candidates * dim).
    """
    new = np.flatnonzero(~np.isin(near.rows, popular.rows))
    everything = Candidates.concat([popular, near.take(new)])
    if not len(everything):
        return everything
    wanted = np.zeros(len(everything), np.float32)
    if len(popular):
        wanted[: len(popular)] = _popularity_of(popular)
    cosines = gather_unit_rows(item_vectors, everything.rows, len(vector)) @ vector
    mixed = (1.0 - session_weight) * wanted + session_weight * unit_range(cosines)
    order = top_k(mixed.astype(np.float32), len(mixed))
    scores = np.exp(mixed[order] - 1.0).astype(np.float32)
    return Candidates(everything.rows[order], scores, everything.sources[order])


def _popularity_of(popular: Candidates) -> Float32Array:
    """Relevance in [0, 1] that falls along the candidates."""
    return relevance(np.maximum(popular.scores, np.finfo(np.float32).tiny))


def randomize(candidates: Candidates, slate_size: int, share: float, unit_id: str, period: int) -> Candidates:
    """Let some of the next best take places among the first, so that not everybody gets the same list forever.

    Of the first `slate_size` candidates, floor(share * slate_size) change places with others out of the twice as many
    that follow; which, is a matter of the user and the period alone. A row gets the score of its new place: what the
    slate is ordered by.

    Cost: some 20 µs.
    """
    following = min(2 * slate_size, len(candidates) - slate_size)
    count = min(int(share * slate_size), following)
    if count <= 0:
        return candidates
    rng = np.random.default_rng(xxhash.xxh3_64_intdigest(f"{period}:{unit_id}".encode()))
    places = rng.choice(slate_size, count, replace=False)
    others = slate_size + rng.choice(following, count, replace=False)
    order = np.arange(len(candidates))
    order[places], order[others] = others, places
    return Candidates(candidates.rows[order], candidates.scores, candidates.sources[order])
