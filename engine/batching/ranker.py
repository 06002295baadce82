"""A ranker whose requests share calls."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from engine.batching.micro_batcher import MicroBatcher
from engine.errors import EngineError
from engine.request.clock import request_deadline
from engine.types import Float32Array, Int64Array, RankingContext


@runtime_checkable
class BatchRanker(Protocol):
    """A ranker for several requests at once."""

    def score_many(self, requests: Sequence[tuple[RankingContext, Int64Array]]) -> Sequence[Float32Array | EngineError]:
        """Click probabilities of each request's candidates, in step, or why there are none."""
        ...


class BatchedRanker:
    """A Ranker. A request that cannot be scored fails alone."""

    def __init__(self, ranker: BatchRanker, batcher: MicroBatcher) -> None:
        self._lane = batcher.lane(ranker.score_many)

    def score(self, context: RankingContext, rows: Int64Array) -> Float32Array:
        """See Ranker. Waits for its turn, at most until the request's deadline; raises DeadlineExceeded then."""
        if not len(rows):
            return np.empty(0, np.float32)
        return self._lane((context, rows), request_deadline.get())
