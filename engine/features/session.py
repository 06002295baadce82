"""The recent session as the ranker reads it: a function of events and a moment, the same in training and in serving.

In training, the query vector beside these features is the user's state right at the moment, which has read the whole
session; in serving it has read a part of it, and the rest is mixed in. The session's own features are always of all of
it, so that the ranker can lean on them when the query vector is out of date.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from engine.config.serving import BlendConfig
from engine.features.history import Histories
from engine.features.schema import SESSION_DENSE
from engine.kernels.session import session_summary
from engine.types import EventType, Float32Array, Int64Array, UInt8Array

# Where a bundle's manifest says, in `training`, how the ranker read sessions.
SESSION_FIELD: Final = "session"


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Which events count, and how much. type_weights: float32 (256,), weight of an event by its type code."""

    window_s: float
    half_life_s: float
    type_weights: Float32Array

    @staticmethod
    def of(config: BlendConfig) -> "SessionSettings":
        # A weight for every possible byte, so that the kernel may index with whatever is stored.
        weights = np.zeros(256, np.float32)
        for name, weight in config.event_weights.items():
            weights[EventType[name.upper()]] = weight
        return SessionSettings(config.window_s, config.half_life_s, weights)

    @staticmethod
    def of_training(training: Mapping[str, Any]) -> "SessionSettings":
        """Those in a manifest's `training`; the defaults, which all trained with that do not say.

        Raises pydantic.ValidationError for what is no such settings.
        """
        return SessionSettings.of(BlendConfig.model_validate(training.get(SESSION_FIELD, {})))


@dataclass(frozen=True, slots=True)
class SessionSignal:
    """What a session says at one moment.

    vector: float32 (dim,), see engine.kernels.session.session_summary; zeros where no event counts.
    evidence: the sum of the events' weights. dense: float32 (len(SESSION_DENSE),), the ranker's inputs.
    """

    vector: Float32Array
    evidence: float
    dense: Float32Array


def session_signal(
    rows: Int64Array,
    event_types: UInt8Array,
    timestamps_ms: Int64Array,
    item_vectors: Float32Array,
    now_ms: int,
    settings: SessionSettings,
) -> SessionSignal:
    """Sum up a session of n events, in any order.

    Args:
        rows: int64 (n,), item rows, -1 for unknown ones. event_types: uint8 (n,). timestamps_ms: int64 (n,).
        item_vectors: float32 (items, dim), may be a strided view. now_ms: Unix milliseconds.

    Cost: O(n * dim).
    """
    summary = session_summary(
        item_vectors,
        item_vectors.shape[1],
        rows,
        event_types,
        timestamps_ms,
        now_ms,
        settings.half_life_s,
        settings.type_weights,
        settings.window_s,
    )
    return SessionSignal(*summary)


def session_inputs(
    histories: Histories,
    users: Int64Array,
    moments_ms: Int64Array,
    item_vectors: Float32Array,
    settings: SessionSettings,
    event_limit: int,
) -> tuple[Float32Array, Float32Array]:
    """What serving would have known of n users' sessions at n moments: vectors (n, dim), dense (n, len(SESSION_DENSE)).

    Args:
        histories: events of every kind that sessions hold, their rows indexing item_vectors.
        users, moments_ms: int64 (n,). Only events that are strictly earlier than the moment are read.
        event_limit: how many of the latest events a session keeps.

    Cost: O(events of the sessions * dim), a few microseconds a moment.
    """
    vectors = np.zeros((len(users), item_vectors.shape[1]), np.float32)
    dense = np.zeros((len(users), len(SESSION_DENSE)), np.float32)
    for place, (user, moment_ms) in enumerate(zip(users.tolist(), moments_ms.tolist(), strict=True)):
        part = session_before(histories, user, moment_ms, settings.window_s, event_limit)
        signal = session_signal(
            histories.rows[part],
            histories.event_types[part],
            histories.timestamps_ms[part],
            item_vectors,
            moment_ms,
            settings,
        )
        vectors[place], dense[place] = signal.vector, signal.dense
    return vectors, dense


def session_before(histories: Histories, user: int, moment_ms: int, window_s: float, event_limit: int) -> slice:
    """Positions of a user's last events strictly before a moment: inside the window, `event_limit` at most."""
    begin, end = int(histories.offsets[user]), int(histories.offsets[user + 1])
    times = histories.timestamps_ms[begin:end]
    stop = begin + int(np.searchsorted(times, moment_ms))
    start = begin + int(np.searchsorted(times, moment_ms - window_s * 1000.0))
    return slice(max(start, stop - event_limit), stop)
