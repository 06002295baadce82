"""Stage: the probability that the user clicks, for every candidate in one call."""

from typing import Protocol

from engine.types import Float32Array, Int64Array, RankingContext


class Ranker(Protocol):
    """Scores candidates for one request. Safe for concurrent calls."""

    def score(self, context: RankingContext, rows: Int64Array) -> Float32Array:
        """Click probability of each candidate: float32 (n,) for rows int64 (n,), in their order."""
        ...
