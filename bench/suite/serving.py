"""A published world that can be asked, and its answers held against an exact search."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from engine.adapters.redis.store import RedisFeatureStore
from engine.app.serve import open_pipeline
from engine.bundle.bundle import Bundle
from engine.config.serving import EngineConfig
from engine.data.dataset import Dataset
from engine.features.session import SessionSignal
from engine.features.state import UserState
from engine.request.model import ServingModel
from engine.request.pipeline import Pipeline
from engine.stages.blend import BlendSettings, blend_session
from engine.stages.retrieve import ItemIndex
from engine.stages.seen import SeenPolicy
from engine.types import Float32Array, Int64Array, UInt8Array
from engine_bench.world import WorldVectors

PATIENCE_S = 60.0
SURFACE = "home"
_PART_ROWS = 1 << 18


@dataclass(frozen=True)
class PublishedWorld:
    """The synthetic world of one size with its bundle, which is kept on disk."""

    dataset: Dataset
    vectors: WorldVectors
    bundle: Bundle

    @property
    def item_count(self) -> int:
        return len(self.bundle.items)


@dataclass(frozen=True)
class Serving:
    """A world whose users are in Redis, each with a session of the five minutes before `now_ms`, under rules."""

    world: PublishedWorld
    config: EngineConfig
    user_ids: list[str]
    now_ms: int

    @property
    def seen_policy(self) -> SeenPolicy:
        return SeenPolicy.of(self.config.seen_on(SURFACE), self.config.processor.impression_half_life_s)

    @contextmanager
    def pipeline(self) -> Iterator[tuple[asyncio.AbstractEventLoop, Pipeline]]:
        """A pipeline as a server has it, and the loop to ask it on."""
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            context = open_pipeline(self.config)
            pipeline = loop.run_until_complete(context.__aenter__())
            try:
                yield loop, pipeline
            finally:
                loop.run_until_complete(context.__aexit__(None, None, None))

    def states(self, count: int) -> list[UserState]:
        """What Redis knows of the first `count` users."""

        async def fetch() -> list[UserState]:
            store = RedisFeatureStore(self.config.redis.url, self.config.redis)
            generation = self.world.bundle.manifest.generation
            try:
                return [await store.fetch(user_id, generation) for user_id in self.user_ids[:count]]
            finally:
                await store.close()

        return asyncio.run(fetch())

    def blended(self, model: ServingModel, state: UserState) -> tuple[Float32Array, SessionSignal]:
        """What a request of this user searches with, float32 (dim,), and what the ranker reads of their session."""
        record = state.record
        assert record is not None
        return blend_session(
            record.embedding,
            record.embedded_until_ms,
            state.session,
            model.catalogue.rows(state.session.item_keys),
            model.catalogue.item_vectors,
            self.now_ms,
            BlendSettings.of(self.config.blend),
            model.bundle.ranker_session,
        )

    def measured_recall(self, model: ServingModel, k: int, users: int) -> float:
        """Recall at k of what this many users search with, under the bitmap of the surface that they ask on."""
        bitmap = model.catalogue.of_surface(SURFACE)
        mask = np.unpackbits(bitmap, count=self.world.item_count, bitorder="little").astype(bool)
        queries = np.stack([self.blended(model, state)[0] for state in self.states(users)])
        # There are no new items here: the bundle's own rows are all.
        truth = exact_rows(model.bundle.item_vectors, queries, mask, k)
        return mean_recall(model.index, queries, k, bitmap, truth)


def exact_rows(vectors: Float32Array, queries: Float32Array, mask: np.ndarray, k: int) -> list[Int64Array]:
    """The rows of the exact top k among those of the mask, for each query; part by part, whatever the size.

    vectors float32 (n, at least dim), queries float32 (q, dim), mask bool (n,).
    """
    best_rows = np.empty((len(queries), 0), np.int64)
    best_scores = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(mask), _PART_ROWS):
        rows = start + np.flatnonzero(mask[start : start + _PART_ROWS])
        part = np.ascontiguousarray(vectors[start : start + _PART_ROWS, : queries.shape[1]])[rows - start]
        scores = np.hstack([best_scores, queries @ part.T])
        candidates = np.hstack([best_rows, np.broadcast_to(rows, (len(queries), len(rows)))])
        kept = np.argpartition(-scores, k - 1, axis=1)[:, :k] if scores.shape[1] > k else np.arange(scores.shape[1])
        kept = np.broadcast_to(kept, (len(queries), kept.shape[-1]))
        best_rows = np.take_along_axis(candidates, kept, axis=1)
        best_scores = np.take_along_axis(scores, kept, axis=1)
    return list(best_rows)


def mean_recall(index: ItemIndex, queries: Float32Array, k: int, bitmap: UInt8Array, truth: list[Int64Array]) -> float:
    """The share of the exact answers (their first k) that the index finds, over all queries."""
    found = [index.search(query, k, bitmap)[0] for query in queries]
    shares = [len(np.intersect1d(rows, exact)) / len(exact) for rows, exact in zip(found, truth, strict=True)]
    return round(float(np.mean(shares)), 4)
