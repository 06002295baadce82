"""The next-event split: each user's last events are replayed one by one, everything before them is training.

And what serving would have searched with just before each of them, and where the event's item then stood.
"""

from dataclasses import dataclass

import numpy as np

from engine.data.dataset import Dataset
from engine.features.history import Histories, HistoryStates
from engine.features.seen_history import EVERYTHING_S, hides, offered
from engine.features.state import Session
from engine.stages.blend import BlendSettings, blend_session
from engine.training.embeddings import EmbeddingModel
from engine.types import Float32Array, Int64Array

# The last part of each user's events is replayed, at most so many of them.
TAIL_SHARE = 0.2
TAIL_EVENTS = 50
PUBLISH_EVERY_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class NextEvents:
    """n replayed events in time order, and what was known just before each.

    train: the data set without any user's tail. histories: all positive events. signals: all events that a session
    may hold, with all users of `histories`.
    users, targets, times_ms: int64 (n,), who turned to which item and when.
    known: int64 (n,), the user's positive events strictly before it. published: int64 (n,), how many of them the
    long-term vector of that moment was computed from; known >= published >= min_training_events.
    session_starts, session_stops: int64 (n,), positions in signals of the session just before the event.
    hide_s: int64 (256,), for how many seconds an event hides its item, by type.
    """

    train: Dataset
    histories: Histories
    signals: Histories
    users: Int64Array
    targets: Int64Array
    times_ms: Int64Array
    known: Int64Array
    published: Int64Array
    session_starts: Int64Array
    session_stops: Int64Array
    hide_s: Int64Array

    def __len__(self) -> int:
        return len(self.users)

    @property
    def known_states(self) -> HistoryStates:
        """What the user tower reads when it runs right after the latest event."""
        return HistoryStates(self.users, self.known)

    @property
    def published_states(self) -> HistoryStates:
        """What the hourly job had read."""
        return HistoryStates(self.users, self.published)


def next_events(
    dataset: Dataset,
    min_training_events: int,
    window_s: float,
    session_events: int,
    hide_s: Int64Array = EVERYTHING_S,
) -> NextEvents:
    """Segment each user's history by its own time and list the replayed events.

    The cut is each user's own and not one moment for all: most users of a rating log come once, so that hardly
    anybody has events on both sides of one moment (27 of 610 in ml-latest-small). What others did after a user's cut is
    in training for every method alike; of the user's own tail nothing is.

    - A user is replayed when `min_training_events` positive events stay before the cut; others stay in training.
    - Only an event on an item that nothing hides from its user just before is a test: by default the first one on it.
    - What happened at the very moment of an event is unknown to it: the order within a tie is the order of a file.
    - The long-term vector is the one published at the last full hour, and at the cut at the earliest.
    - The session is what the stream processor would hold: everything but impressions and returns, the latest
      `session_events` of the last `window_s` seconds, also those before the cut.

    Cost: O(n log n).
    """
    histories = dataset.histories()
    signals = _signals(dataset)
    tails = []
    training_lengths = histories.lengths()
    on_offer = offered(histories, hide_s)
    for user in range(histories.user_count):
        times = histories.timestamps_ms[histories.offsets[user] : histories.offsets[user + 1]]
        if not len(times):
            continue
        cut = len(times) - min(int(TAIL_SHARE * len(times)), TAIL_EVENTS)
        # A tie is not cut in two: training would know a part of a moment that is to be predicted.
        cut = int(np.searchsorted(times, times[cut])) if cut < len(times) else cut
        if cut < min_training_events or cut == len(times):
            continue
        training_lengths[user] = cut
        tail = cut + np.flatnonzero(on_offer[histories.offsets[user] + cut : histories.offsets[user + 1]])
        published = np.searchsorted(times, times[tail] // PUBLISH_EVERY_MS * PUBLISH_EVERY_MS)
        signal_times = signals.timestamps_ms[signals.offsets[user] : signals.offsets[user + 1]]
        stops = np.searchsorted(signal_times, times[tail])
        starts = np.searchsorted(signal_times, times[tail] - int(window_s * 1000))
        tails.append(
            np.stack(
                [
                    np.full(len(tail), user),
                    histories.offsets[user] + tail,
                    np.searchsorted(times, times[tail]),
                    np.maximum(published, cut),
                    signals.offsets[user] + np.maximum(starts, stops - session_events),
                    signals.offsets[user] + stops,
                ]
            )
        )
    columns = np.concatenate(tails, axis=1) if tails else np.zeros((6, 0), np.int64)
    users, positions, known, published, starts, stops = columns[
        :, np.argsort(histories.timestamps_ms[columns[1]], kind="stable")
    ]
    return NextEvents(
        train=_heads(dataset, histories, training_lengths),
        histories=histories,
        signals=signals,
        users=users,
        targets=histories.rows[positions],
        times_ms=histories.timestamps_ms[positions],
        known=known,
        published=published,
        session_starts=starts,
        session_stops=stops,
        hide_s=hide_s,
    )


def _signals(dataset: Dataset) -> Histories:
    events = dataset.interactions.of_sessions()
    return Histories.build(events.users, events.rows, events.event_types, events.timestamps_ms, dataset.user_count)


def _heads(dataset: Dataset, histories: Histories, lengths: Int64Array) -> Dataset:
    """The data set with the first `lengths` (users,) positive events of each user alone."""
    events = dataset.interactions.positive()
    order = np.lexsort((np.arange(len(events)), events.timestamps_ms, events.users))
    places = np.arange(len(events)) - np.repeat(histories.offsets[:-1], histories.lengths())
    keep = np.zeros(len(events), np.bool_)
    keep[order] = places < np.repeat(lengths, histories.lengths())
    return dataset.with_interactions(events.select(keep))


STALE = "stale"
METHODS = (STALE, "blended", "re-embedded", "re-embedded + blended")

# Scores at once: bounds memory to about 200 MB.
_CHUNK_SCORES = 16_000_000


def query_vectors(model: EmbeddingModel, events: NextEvents, settings: BlendSettings) -> dict[str, Float32Array]:
    """What each method searches with: float32 (n, dim) in the order of the events."""
    stale = _embed(model, events, events.published_states)
    current = _embed(model, events, events.known_states)
    vectors = (
        stale,
        blended(stale, events.published_states, model.item_vectors, events, settings),
        current,
        blended(current, events.known_states, model.item_vectors, events, settings),
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
