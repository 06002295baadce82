"""Ranked lists for the tested users, one function a method. Every list is int64 (users, LIST_SIZE), padded with -1."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import uvloop

from engine.app.model import load_embedders
from engine.app.offline import PATIENCE_S, answers, published
from engine.bundle.bundle import Bundle
from engine.config.seen import SeenConfig
from engine.config.serving import EngineConfig
from engine.evaluation.leave_one_out import LeaveOneOut
from engine.features.history import HistoryStates
from engine.features.session import session_before
from engine.features.state import Session
from engine.types import Float32Array, Int64Array, RecommendQuery, item_keys

LIST_SIZE = 50
SURFACE = "evaluation"


def popularity_lists(bundle: Bundle, split: LeaveOneOut) -> Int64Array:
    """The overall popularity order."""
    scores = np.empty(len(bundle.items), np.float32)
    scores[bundle.popularity.overall.rows] = bundle.popularity.overall.scores
    return _best_offered(np.broadcast_to(scores, (len(split.users), len(scores))), split)


def retrieval_lists(bundle: Bundle, split: LeaveOneOut) -> dict[str, Int64Array]:
    """Exact search in each space of the bundle: the network's, and the matrix factorization's."""
    embed, fold_in = load_embedders(bundle)
    histories = split.train.histories()
    states = HistoryStates(split.users, histories.lengths()[split.users])
    codes = split.train.demographic_codes()
    spaces: dict[str, tuple[Float32Array, Float32Array]] = {
        "ALS": (fold_in(histories, states, codes), np.ascontiguousarray(bundle.column("collaborative")))
    }
    if bundle.manifest.embeddings == "two-tower":
        spaces["two-tower"] = (embed(histories, states, codes), np.ascontiguousarray(bundle.item_vectors))
    return {name: _best_offered(users @ items.T, split) for name, (users, items) in spaces.items()}


def _best_offered(scores: Float32Array, split: LeaveOneOut) -> Int64Array:
    """int64 (users, LIST_SIZE): the best rows of each line of scores (users, items), without what is hidden."""
    scores = scores.copy()
    scores[split.hidden_places, split.hidden_rows] = -np.inf
    size = min(LIST_SIZE, scores.shape[1])
    best = np.argpartition(-scores, size - 1, axis=1)[:, :size]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1).astype(np.int64)


def pipeline_name(diversity_weight: float) -> str:
    """What the lists of the pipeline with this weight are called."""
    return f"pipeline, MMR {diversity_weight:g}" if diversity_weight else "pipeline"


def pipeline_lists(
    bundle: Bundle, split: LeaveOneOut, scratch: Path, diversity_weights: Sequence[float], seen: SeenConfig
) -> dict[str, Int64Array]:
    """The serving pipeline itself, over a private Redis, once with each diversity weight.

    Requests are made as of the time of the test event, which a server would know, and with the session just before
    it, which the ranker reads. Embeddings are computed from everything before that moment, so that of the session
    nothing is left to be mixed into them.

    seen: the policy, whose windows are those that the split was made with.
    """
    config = EngineConfig.load(
        bundle={"directory": bundle.path.parent},
        redis={"directory": scratch / "redis", "timeout_ms": PATIENCE_S * 1000},
        surfaces={SURFACE: {}},
        seen=seen.model_dump(),
    )
    weights = {pipeline_name(weight): weight for weight in diversity_weights}
    with published(bundle, split.train, config, _sessions(split, config)):
        lists: dict[str, Int64Array] = uvloop.run(_ask(config, split, weights))
        return lists


def _sessions(split: LeaveOneOut, config: EngineConfig) -> Iterator[tuple[str, Session]]:
    """What the processor would have of each tested user's session: the events just before the test event."""
    keys = item_keys(split.train.items["item_id"].to_list())
    histories = split.train.histories()
    user_ids = split.train.users["user_id"]
    for user, time_ms in zip(split.users.tolist(), split.times_ms.tolist(), strict=True):
        part = session_before(histories, user, time_ms, config.blend.window_s, config.processor.session_events)
        session = Session(keys[histories.rows[part]], histories.event_types[part], histories.timestamps_ms[part])
        if len(session.item_keys):
            yield user_ids[user], session


async def _ask(config: EngineConfig, split: LeaveOneOut, weights: dict[str, float]) -> dict[str, Int64Array]:
    user_ids = split.train.users["user_id"]
    lists = {name: np.full((len(split.users), LIST_SIZE), -1, np.int64) for name in weights}
    asked = [
        (lists[name][place], RecommendQuery(user_ids[user], SURFACE, LIST_SIZE, time_ms, diversity_weight=weight))
        for name, weight in weights.items()
        for place, (user, time_ms) in enumerate(zip(split.users.tolist(), split.times_ms.tolist(), strict=True))
    ]
    places = iter(asked)
    async for answer in answers(config, (query for _, query in asked)):
        line, _ = next(places)
        line[: len(answer.slate)] = answer.slate.rows
    return lists
