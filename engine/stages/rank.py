"""Stage: the probability that the user clicks, for every candidate in one call."""

from typing import Protocol

from engine.features.context import ContextEncoder
from engine.features.session import SessionSignal
from engine.features.state import UserRecord
from engine.kernels.topk import top_k
from engine.types import Candidates, Float32Array, Int64Array, RankingContext, RecommendQuery


class Ranker(Protocol):
    """Scores candidates for one request. Safe for concurrent calls."""

    def score(self, context: RankingContext, rows: Int64Array) -> Float32Array:
        """Click probability of each candidate: float32 (n,) for rows int64 (n,), in their order."""
        ...


def rank(ranker: Ranker, context: RankingContext, candidates: Candidates) -> Candidates:
    """The candidates by falling click probability, which becomes their score. Ties keep retrieval order."""
    scores = ranker.score(context, candidates.rows)
    order = top_k(scores, len(scores))
    return Candidates(candidates.rows[order], scores[order], candidates.sources[order])


def ranking_context(
    encoder: ContextEncoder,
    query: RecommendQuery,
    record: UserRecord,
    query_vector: Float32Array,
    session: SessionSignal,
) -> RankingContext:
    """The request's half of the ranker's input."""
    demographics = query.demographics.or_else(record.demographics)
    return RankingContext(
        query=query_vector,
        session=session.vector,
        collaborative=record.collaborative,
        dense=encoder.dense(record.profile, query.time_ms, session.dense),
        codes=encoder.codes(demographics, query.device, query.country, query.surface, query.time_ms),
    )
