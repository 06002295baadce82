"""The leave-one-out split, and ranked lists for its users, one function a method.

Each user's last event is the test, everything before it is training. Every list is int64 (users, LIST_SIZE), padded
with -1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import uvloop

from engine.app.model import load_embedders
from engine.app.offline import PATIENCE_S, answers, published
from engine.bundle.bundle import Bundle
from engine.config.seen import SeenConfig
from engine.config.serving import EngineConfig
from engine.data.dataset import Dataset
from engine.features.history import HistoryStates
from engine.features.seen_history import EVERYTHING_S, hides, offered
from engine.features.session import session_before
from engine.features.state import Session
from engine.types import Float32Array, Int64Array, RecommendQuery, item_keys

# Users with fewer training events are trained on, but not tested.
MIN_TRAINING_EVENTS = 4


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """train: the data set without the test events. users, targets, times_ms: int64 (n,), the test events.

    hidden_places, hidden_rows: int64 (m,), which test's user is kept from which item at its moment, by what they did in
    training; a pair may be there twice.
    """

    train: Dataset
    users: Int64Array
    targets: Int64Array
    times_ms: Int64Array
    hidden_places: Int64Array
    hidden_rows: Int64Array


def leave_one_out(dataset: Dataset, hide_s: Int64Array = EVERYTHING_S) -> LeaveOneOut:
    """Split by each user's own time. Only positive events count.

    Every item counts as in stock and shown everywhere: what is sold out today was on offer when the test event
    happened, and every method must rank the same items.

    A user whose last event is on an item that the policy hides from them at that moment keeps it in training and is not
    tested: no list could hold it.

    Args:
        hide_s: int64 (256,), for how many seconds an event hides its item, by type. By default everything forever: a
            repeat of a training item is no test then, and no list holds one.
    """
    events = dataset.interactions.positive()
    order = np.lexsort((np.arange(len(events)), events.timestamps_ms, events.users))
    users = events.users[order].astype(np.int64)
    last = np.flatnonzero(np.append(users[1:] != users[:-1], True))
    counts = np.bincount(users, minlength=dataset.user_count)
    tests = last[(counts[users[last]] > MIN_TRAINING_EVENTS) & offered(dataset.histories(), hide_s)[last]]
    held_out = order[tests]
    keep = np.ones(len(events), np.bool_)
    keep[held_out] = False
    train = events.select(keep)
    place = np.full(dataset.user_count, -1)
    place[events.users[held_out]] = np.arange(len(held_out))
    tested = np.flatnonzero(place[train.users] >= 0)
    places = place[train.users[tested]]
    hidden = hides(
        train.event_types[tested], train.timestamps_ms[tested], events.timestamps_ms[held_out][places], hide_s
    )
    on_offer = dataset.items.with_columns(pl.lit(True).alias("in_stock"), pl.lit(None, pl.String).alias("surfaces"))
    return LeaveOneOut(
        train=Dataset(on_offer, dataset.users, train, dataset.vocabularies),
        users=events.users[held_out].astype(np.int64),
        targets=events.rows[held_out].astype(np.int64),
        times_ms=events.timestamps_ms[held_out],
        hidden_places=places[hidden],
        hidden_rows=train.rows[tested][hidden].astype(np.int64),
    )


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
