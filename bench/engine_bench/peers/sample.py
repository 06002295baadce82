"""What real requests hand from stage to stage: the inputs that stages and their peers are measured with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.adapters.redis.store import RedisFeatureStore
from engine.config.serving import EngineConfig
from engine.kernels.unit_rows import gather_unit_rows
from engine.request.model import ServingModel
from engine.stages.blend import BlendSettings, blend_session
from engine.stages.diversify import relevance
from engine.stages.eligibility import open_bitmap
from engine.stages.rank import rank, ranking_context
from engine.stages.retrieve import retrieve
from engine.stages.seen import SeenPolicy, apply_policy
from engine.types import Float32Array, Int64Array, RankingContext, RecommendQuery
from engine_bench.load_target import SURFACE, circumstances


@dataclass(frozen=True, slots=True)
class StageInputs:
    """Of one request.

    query: float32 (dim,), what retrieval searches with. context, rows: what the ranker scores, int64 (n,).
    relevance: float32 (n,), units: float32 (n, dim), what the slate is picked from, best first.
    """

    query: Float32Array
    context: RankingContext
    rows: Int64Array
    relevance: Float32Array
    units: Float32Array


async def stage_inputs(
    model: ServingModel, store: RedisFeatureStore, user_ids: Sequence[str], time_ms: int, config: EngineConfig
) -> list[StageInputs]:
    """Of one request of each of these users, all of whom have a record, at this time."""
    blend = BlendSettings.of(config.blend)
    policy = SeenPolicy.of(config.seen_on(SURFACE), config.processor.impression_half_life_s)
    catalogue, vectors = model.catalogue, model.catalogue.item_vectors
    inputs = []
    for place, user_id in enumerate(user_ids):
        state = await store.fetch(user_id, model.bundle.manifest.generation)
        assert state.record is not None
        session, record = state.session, state.record
        query, signal = blend_session(
            record.embedding,
            record.embedded_until_ms,
            session,
            catalogue.rows(session.item_keys),
            vectors,
            time_ms,
            blend,
            model.bundle.ranker_session,
        )
        device, country = circumstances(place)
        asked = RecommendQuery(user_id, SURFACE, 50, time_ms, device, country)
        context = ranking_context(model.encoder, asked, record, query, signal)
        eligible = open_bitmap(catalogue, SURFACE, ())
        apply_policy(policy, catalogue, state.seen, time_ms, eligible)
        candidates = retrieve(model.index, query, config.retrieval.candidate_count, eligible)
        ranked = rank(model.ranker, context, candidates)
        units = gather_unit_rows(vectors, ranked.rows, vectors.shape[1])
        inputs.append(StageInputs(np.array(query), context, candidates.rows, relevance(ranked.scores), units))
    return inputs
