"""Ranker examples: at each moment of the tail, the item that was chosen against items that could have been shown."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.config.serving import BlendConfig
from engine.config.stream import ProcessorConfig
from engine.data.dataset import Dataset
from engine.features.context import context_codes, context_dense
from engine.features.history import Histories
from engine.features.popularity import PopularityTimeline
from engine.features.profile import ItemStats, profile_features
from engine.features.schema import DEMOGRAPHICS
from engine.features.session import SessionSettings, session_inputs, session_signal
from engine.training.config import RankerConfig
from engine.training.embeddings import EmbeddingModel
from engine.training.ranker.exposure import Exposures
from engine.training.ranker.split import RankerSplit
from engine.types import BoolArray, Float32Array, Int64Array

# Scores computed at once while retrieving: bounds memory to about 64 MB.
_CHUNK_FLOATS = 16_000_000
# How the ranker reads a session; in the bundle as well, so that serving reads it in the same way whatever it mixes in.
RANKER_SESSION: Final = BlendConfig()
_NO_EVENTS: Final = (np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class RequestInputs:
    """The request's half of the ranker's input, for n moments; see engine.types.RankingContext.

    query, session: float32 (n, dim). collaborative: float32 (n, c). dense: float32 (n, d). codes: int64 (n, codes).
    """

    query: Float32Array
    session: Float32Array
    collaborative: Float32Array
    dense: Float32Array
    codes: Int64Array

    def take(self, positions: npt.NDArray[np.integer]) -> "RequestInputs":
        return RequestInputs(
            self.query[positions], self.session[positions], self.collaborative[positions], self.dense[positions],
            self.codes[positions],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Examples:
    """n moments with k candidates each, the chosen item first.

    users: int64 (n,). inputs: the requests. rows: int64 (n, k), candidate items, column 0 the chosen one.
    dynamic: float32 (n, k, len(ITEM_DYNAMIC)), popularity strictly before each moment.
    sample_weight: float32 (n, k), how many retrieved candidates this one was sampled from: 1 for the chosen item, 0 for
        padding and for random negatives, which no retrieval would have brought.
    exposure: float32 (n, k), how much an item was being shown at the moment; the mean over the pool is 1.
    valid: bool (n, k), false where padded.
    retrieved: bool (n,), whether retrieval itself had brought the chosen item.
    """

    users: Int64Array
    inputs: RequestInputs
    rows: Int64Array
    dynamic: Float32Array
    sample_weight: Float32Array
    exposure: Float32Array
    valid: BoolArray
    retrieved: BoolArray

    def __len__(self) -> int:
        return len(self.users)

    def weights(self) -> Float32Array:
        """float32 (n, k): how many of the catalogue each candidate counts for in its pool, 0 where padded."""
        return np.where(self.valid, np.maximum(self.sample_weight, 1.0), 0.0).astype(np.float32)

    def take(self, positions: npt.NDArray[np.integer]) -> "Examples":
        """The examples at these positions, in this order."""
        return Examples(
            self.users[positions], self.inputs.take(positions), self.rows[positions], self.dynamic[positions],
            self.sample_weight[positions], self.exposure[positions], self.valid[positions], self.retrieved[positions],
        )  # fmt: skip


def build_examples(
    dataset: Dataset,
    split: RankerSplit,
    retrieval: EmbeddingModel,
    collaborative: EmbeddingModel,
    item_stats: ItemStats,
    popularity: PopularityTimeline,
    config: RankerConfig,
    seed: int,
) -> Examples:
    """Put candidates beside each moment of the split, with features as of that moment.

    Negatives come from the `candidate_count` items that retrieval brings: the first `top_negatives`, where the order
    matters most, and `retrieved_negatives` sampled from the rest; then `random_negatives` from the whole catalogue.
    None of them is an item that the user ever has an event on.

    Args:
        retrieval, collaborative: models trained on `split.head` alone.
        item_stats: for profiles. popularity: timeline of all events; it is read as of each moment.

    Cost: one exact search of the catalogue an example, O(examples * items * dim).
    """
    rng = np.random.default_rng(seed)
    # Published vectors may have read what no stream has reported.
    unknown = rng.random(len(split)) < config.session_unknown_share
    inputs = request_inputs(dataset, split, retrieval, collaborative, item_stats, unknown)
    ever = _EverUsed.of(split.histories, dataset.item_count)
    item_vectors = retrieval.item_vectors
    pool_size = min(config.candidate_count, dataset.item_count)
    retrieved_rows, retrieved_weights, found = [], [], []
    chunk = max(1, _CHUNK_FLOATS // max(1, dataset.item_count))
    for begin in range(0, len(split), chunk):
        part = slice(begin, begin + chunk)
        scores = inputs.query[part] @ item_vectors.T
        positives = split.positives[part]
        positive_scores = scores[np.arange(len(positives)), positives]
        ever.mask(scores, split.states.users[part], -np.inf)
        found.append((scores > positive_scores[:, None]).sum(axis=1) < pool_size)
        chosen, weights = _sample_pool(scores, pool_size, config.top_negatives, config.retrieved_negatives, rng)
        retrieved_rows.append(chosen)
        retrieved_weights.append(weights)
    random_rows = rng.integers(0, dataset.item_count, (len(split), config.random_negatives))
    random_valid = ~ever.contains(split.states.users[:, None], random_rows)

    rows = np.concatenate([split.positives[:, None], np.concatenate(retrieved_rows), random_rows], axis=1)
    weights = np.concatenate(retrieved_weights)
    sample_weight = np.zeros(rows.shape, np.float32)
    sample_weight[:, 0] = 1.0
    sample_weight[:, 1 : 1 + weights.shape[1]] = weights
    valid = sample_weight > 0
    valid[:, 1 + weights.shape[1] :] = random_valid
    exposures = Exposures.of(dataset.interactions, dataset.item_count)
    exposure = exposures.at(rows, split.surfaces, split.moments_ms) ** config.exposure_correction
    examples = Examples(
        users=split.states.users,
        inputs=inputs,
        rows=rows,
        dynamic=popularity.at(rows, split.moments_ms[:, None]),
        sample_weight=sample_weight,
        exposure=exposure,
        valid=valid,
        retrieved=np.concatenate(found),
    )
    pool = examples.weights()
    mean = (pool * exposure).sum(axis=1, keepdims=True) / pool.sum(axis=1, keepdims=True)
    return replace(examples, exposure=exposure / mean)


def request_inputs(
    dataset: Dataset,
    split: RankerSplit,
    retrieval: EmbeddingModel,
    collaborative: EmbeddingModel,
    item_stats: ItemStats,
    unknown_session: BoolArray | None = None,
) -> RequestInputs:
    """What serving would have assembled at each moment of the split, from the events before it.

    The session is read as RANKER_SESSION says, and so it will be in serving.

    Args:
        unknown_session: bool (n,), the moments at which nothing is known of the session; None: at none.
    """
    demographic_codes = dataset.demographic_codes()
    profile = profile_features(split.histories, split.states, item_stats)
    settings = SessionSettings.of(RANKER_SESSION)
    session, session_dense = session_inputs(
        _sessions(dataset),
        split.states.users,
        split.moments_ms,
        retrieval.item_vectors,
        settings,
        ProcessorConfig().session_events,
    )
    if unknown_session is not None:
        nothing = session_signal(*_NO_EVENTS, retrieval.item_vectors, 0, settings)
        session[unknown_session], session_dense[unknown_session] = nothing.vector, nothing.dense
    of_users = dict(zip(DEMOGRAPHICS, demographic_codes[split.states.users].T, strict=True))
    of_events = {"device": split.devices, "country": split.countries, "surface": split.surfaces}
    return RequestInputs(
        query=retrieval.user_vectors(split.histories, split.states, demographic_codes),
        session=session,
        collaborative=collaborative.user_vectors(split.histories, split.states, demographic_codes),
        dense=context_dense(profile, split.moments_ms, session_dense, item_stats.epoch_ms),
        codes=context_codes(of_users | of_events, split.moments_ms),
    )


def _sessions(dataset: Dataset) -> Histories:
    """Events as the stream processor keeps them."""
    events = dataset.interactions.of_sessions()
    return Histories.build(events.users, events.rows, events.event_types, events.timestamps_ms, dataset.user_count)


def _sample_pool(
    scores: Float32Array, pool_size: int, top: int, others: int, rng: np.random.Generator
) -> tuple[Int64Array, Float32Array]:
    """The `top` best of each row's pool, then `others` of the rest of it without replacement.

    Args:
        scores: float32 (n, items), -inf where an item is out of the question; a row's pool is its pool_size best.

    Returns:
        rows int64 (n, top + others), fewer when the pool has fewer, and how many of the pool each represents,
        float32, 0 where padded.
    """
    pool = np.argpartition(-scores, pool_size - 1, axis=1)[:, :pool_size]
    pool_scores = np.take_along_axis(scores, pool, axis=1)
    order = np.argsort(-pool_scores, axis=1, kind="stable")
    pool = np.take_along_axis(pool, order, axis=1)
    usable = np.isfinite(np.take_along_axis(pool_scores, order, axis=1))
    top = min(top, pool_size)
    others = min(others, pool_size - top)
    lottery = np.where(usable, rng.random(pool.shape), 2.0)
    lottery[:, :top] = -1.0
    drawn = np.argsort(lottery, axis=1, kind="stable")[:, : top + others]
    weights = np.take_along_axis(usable, drawn, axis=1).astype(np.float32)
    rest = usable[:, top:].sum(axis=1, keepdims=True)
    weights[:, top:] *= rest / np.maximum(weights[:, top:].sum(axis=1, keepdims=True), 1.0)
    return np.take_along_axis(pool, drawn, axis=1), weights


@dataclass(frozen=True, slots=True)
class _EverUsed:
    """Which user ever had an event on which item, as sorted (user, item) keys."""

    keys: Int64Array
    offsets: Int64Array
    item_count: int

    @staticmethod
    def of(histories: Histories, item_count: int) -> "_EverUsed":
        users = np.repeat(np.arange(histories.user_count), histories.lengths())
        keys = np.unique(users * item_count + histories.rows)
        offsets = np.searchsorted(keys, np.arange(histories.user_count + 1) * item_count)
        return _EverUsed(keys, offsets, item_count)

    def contains(self, users: Int64Array, rows: Int64Array) -> BoolArray:
        wanted = users * self.item_count + rows
        positions = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.asarray(self.keys[positions] == wanted)

    def mask(self, scores: Float32Array, users: Int64Array, value: float) -> None:
        """Overwrite the scores (n, items) of each user's own items."""
        for position, user in enumerate(users):
            own = self.keys[self.offsets[user] : self.offsets[user + 1]] - user * self.item_count
            scores[position, own] = value
