"""What serving would have searched with just before each replayed event, and where the event's item then stood."""

import numpy as np

from engine.evaluation.next_event import NextEvents
from engine.features.history import HistoryStates
from engine.features.seen_history import hides
from engine.features.state import Session
from engine.stages.blend import BlendSettings, blend_session
from engine.training.embeddings import EmbeddingModel
from engine.types import Float32Array, Int64Array

STALE = "stale"
METHODS = (STALE, "blended", "re-embedded", "re-embedded + blended")

# Scores at once: bounds memory to about 200 MB.
_CHUNK_SCORES = 16_000_000


def query_vectors(model: EmbeddingModel, events: NextEvents, settings: BlendSettings) -> dict[str, Float32Array]:
    """What each method searches with: float32 (n, dim) in the order of the events."""
    stale = _embed(model, events, events.published_states)
    fresh = _embed(model, events, events.known_states)
    vectors = (
        stale,
        blended(stale, events.published_states, model.item_vectors, events, settings),
        fresh,
        blended(fresh, events.known_states, model.item_vectors, events, settings),
    )
    return dict(zip(METHODS, vectors, strict=True))


def _embed(model: EmbeddingModel, events: NextEvents, states: HistoryStates) -> Float32Array:
    """The vector of each state, each distinct one through the model once."""
    distinct, places = np.unique(np.stack([states.users, states.lengths]), axis=1, return_inverse=True)
    vectors = model.user_vectors(
        events.histories, HistoryStates(distinct[0], distinct[1]), events.train.demographic_codes()
    )
    return vectors[places.ravel()]


def blended(
    long_term: Float32Array,
    states: HistoryStates,
    item_vectors: Float32Array,
    events: NextEvents,
    settings: BlendSettings,
) -> Float32Array:
    """Each long-term vector (n, dim), computed from these states, with its session mixed in as a request does it."""
    until_ms = events.histories.last_times_ms(states)
    signals = events.signals
    out = np.empty_like(long_term)
    for event, (start, stop) in enumerate(zip(events.session_starts, events.session_stops, strict=True)):
        rows = signals.rows[start:stop]
        session = Session(rows, signals.event_types[start:stop], signals.timestamps_ms[start:stop])
        now_ms = int(events.times_ms[event])
        out[event] = blend_session(
            long_term[event], int(until_ms[event]), session, rows, item_vectors, now_ms, settings, settings.session
        )[0]
    return out


def target_positions(queries: Float32Array, item_vectors: Float32Array, events: NextEvents) -> Int64Array:
    """int64 (n,): how many of the items that nothing hid from the user stand above each event's item.

    The order is by inner product, the lower row first among equals: that of an exact search without the hidden items.

    Args:
        queries: float32 (n, dim). item_vectors: float32 (items, dim).

    Cost: O(n * items * dim).
    """
    items = len(item_vectors)
    offsets = events.histories.offsets[events.users]
    positions = np.empty(len(events), np.int64)
    step = max(1, _CHUNK_SCORES // items)
    for start in range(0, len(events), step):
        part = slice(start, start + step)
        scores = queries[part] @ item_vectors.T
        targets = events.targets[part]
        counts = events.known[part]
        lines = np.repeat(np.arange(len(scores)), counts)
        places = np.arange(len(lines)) - np.repeat(np.cumsum(counts) - counts, counts)
        before = offsets[part][lines] + places
        met = events.histories
        hidden = hides(met.event_types[before], met.timestamps_ms[before], events.times_ms[part][lines], events.hide_s)
        scores[lines[hidden], met.rows[before[hidden]]] = -np.inf
        reached = scores[np.arange(len(scores)), targets][:, None]
        above = (scores > reached) | ((scores == reached) & (np.arange(items) < targets[:, None]))
        positions[part] = above.sum(axis=1)
    return positions
