"""A bundle whose answers say which request they are of."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from engine.device.model import DeviceModel, RankHandler, SearchHandler
from engine.device.slot import RANK, SEARCH, SlotShape
from engine.errors import EngineError
from engine.retrieval.overfetch import Found, SearchRequest
from engine.types import Float32Array, Int64Array, RankingContext, UInt8Array

ITEMS: Final = 4_096
WIDTHS: Final = (16, 16, 8, 5)
CODES: Final = 3
# As the first component of a query: it cannot be answered, and fails alone.
BAD: Final = 1e9


def found(query: Float32Array, eligible: UInt8Array, wanted: int) -> Found:
    """As many eligible rows, from a place on that the query says, with scores of both."""
    rows = np.flatnonzero(np.unpackbits(eligible, bitorder="little"))
    rows = np.roll(rows, int(abs(query[0]) * 1000))[:wanted]
    return rows, (rows * query[1] + query[-1]).astype(np.float32)


def scored(context: RankingContext, rows: Int64Array) -> Float32Array:
    total = sum(float(getattr(context, name).sum()) for name in ("query", "session", "collaborative", "dense", "codes"))
    return (rows + total).astype(np.float32)


class Ranker:
    def score_many(self, requests: Sequence[tuple[RankingContext, Int64Array]]) -> list[Float32Array | EngineError]:
        return [EngineError("bad") if c.query[0] == BAD else scored(c, rows) for c, rows in requests]


class Nobody:
    def rows(self, keys: Int64Array) -> Int64Array:
        raise AssertionError("there are no fresh items here")


def search_batch(requests: Sequence[SearchRequest]) -> list[Found | EngineError | None]:
    return [EngineError("bad") if r.query[0] == BAD else found(r.query, r.eligible, r.wanted) for r in requests]


def model() -> DeviceModel[None]:
    shape = SlotShape(*WIDTHS[:1], *WIDTHS[2:], CODES, ITEMS, ITEMS)
    return DeviceModel(shape, {SEARCH: SearchHandler(search_batch), RANK: RankHandler(Ranker(), Nobody(), ITEMS)}, None)
