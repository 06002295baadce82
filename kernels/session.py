"""What the user is after right now: the session as one vector, and its mix with the long-term one."""

import math

import numba
import numpy as np
from numba import types

from engine.kernels.arrays import Float32Array, Int64Array, UInt8Array
from engine.kernels.signatures import BYTES, FLOATS, REORDERED, ROWS, STRIDED_MATRIX


def session_vector(
    table: Float32Array,
    dim: int,
    rows: Int64Array,
    event_types: UInt8Array,
    timestamps_ms: Int64Array,
    now_ms: int,
    half_life_s: float,
    type_weights: Float32Array,
    window_s: float = 1800.0,
) -> tuple[Float32Array, float]:
    """Mean of the unit-length vectors of the items of a session, the latest weighing most.

    An event weighs `type_weights[event_type] * 2 ** (-age / half_life_s)`. One that is older than the window, whose
    item is unknown or has no direction (a zero or non-finite vector), or whose type has no positive weight is
    skipped. An event from the future (clock skew) has age 0.

    Args:
        table: float32 (item_count, at least dim), any strides, may be memory-mapped; the first `dim` columns are used.
        dim: length of the vectors.
        rows: int64 (n,), item rows; -1, or any row outside the table, is an unknown item.
        event_types: uint8 (n,), positions in type_weights; one past its end weighs nothing.
        timestamps_ms: int64 (n,), Unix milliseconds, in any order. now_ms: the time of the request.
        half_life_s: seconds after which an event weighs half, positive.
        type_weights: float32 (type_count,).
        window_s: seconds; an event exactly this old still counts.

    Returns:
        float32 (dim,), of length at most 1, zeros where nothing counted; and the evidence, the sum of the weights.

    Raises:
        ValueError: a table narrower than dim, arrays of different lengths, a half-life or window that is not positive.

    Cost: O(n * dim).
    """
    vector, evidence, _ = session_summary(
        table, dim, rows, event_types, timestamps_ms, now_ms, half_life_s, type_weights, window_s
    )
    return vector, evidence


def session_summary(
    table: Float32Array,
    dim: int,
    rows: Int64Array,
    event_types: UInt8Array,
    timestamps_ms: Int64Array,
    now_ms: int,
    half_life_s: float,
    type_weights: Float32Array,
    window_s: float = 1800.0,
) -> tuple[Float32Array, float, Float32Array]:
    """The vector and the evidence of `session_vector`, and the session in numbers: float32 (3,).

    These are log(1 + x) of the evidence, of how many events had a known item, an age within the window and a positive
    weight, and of the age in seconds of the latest of them, the window where there are none. An event whose item has no
    direction is among those: it happened, though it says nothing of where to.
    """
    _check_session(table, dim, rows, event_types, timestamps_ms, half_life_s, window_s)
    summary: tuple[Float32Array, float, Float32Array] = _session_summary(
        table, dim, rows, event_types, timestamps_ms, now_ms, half_life_s, type_weights, window_s
    )
    return summary


def blended_session(
    long_term: Float32Array,
    read_until_ms: int,
    table: Float32Array,
    rows: Int64Array,
    event_types: UInt8Array,
    timestamps_ms: Int64Array,
    now_ms: int,
    half_life_s: float,
    type_weights: Float32Array,
    window_s: float,
    evidence_half: float,
    whole_half_life_s: float,
    whole_type_weights: Float32Array,
    whole_window_s: float,
) -> tuple[Float32Array, Float32Array, float, Float32Array]:
    """`blend` with the `session_vector` of the events after `read_until_ms`, and the `session_summary` of all events.

    One call for what a request needs of a session: several cost more than what they work out.

    Args:
        As those functions have them; the table's first len(long_term) columns are used.
        whole_half_life_s, whole_type_weights, whole_window_s: for the summary of all events.

    Returns:
        The blended vector, a new array; and the three parts of the summary.

    Raises:
        ValueError: as those functions.

    Cost: O(n * dim).
    """
    dim = len(long_term)
    _check_session(table, dim, rows, event_types, timestamps_ms, half_life_s, window_s)
    _check_session(table, dim, rows, event_types, timestamps_ms, whole_half_life_s, whole_window_s)
    if not evidence_half >= 0:
        raise ValueError(f"evidence_half ({evidence_half}) must not be negative")
    found: tuple[Float32Array, Float32Array, float, Float32Array] = _blended_session(
        long_term, read_until_ms, table, rows, event_types, timestamps_ms, now_ms, half_life_s, type_weights, window_s,
        evidence_half, whole_half_life_s, whole_type_weights, whole_window_s,
    )  # fmt: skip
    return found


def _check_session(
    table: Float32Array,
    dim: int,
    rows: Int64Array,
    event_types: UInt8Array,
    timestamps_ms: Int64Array,
    half_life_s: float,
    window_s: float,
) -> None:
    if table.ndim != 2 or not 0 <= dim <= table.shape[1]:
        raise ValueError(f"a table of shape {table.shape} has no vectors of {dim} columns")
    if not len(rows) == len(event_types) == len(timestamps_ms):
        raise ValueError(f"{len(rows)} rows, {len(event_types)} event types and {len(timestamps_ms)} timestamps differ")
    if not (half_life_s > 0 and window_s > 0):
        raise ValueError(f"half_life_s ({half_life_s}) and window_s ({window_s}) must be positive")


def blend(long_term: Float32Array, session_vector: Float32Array, evidence: float, evidence_half: float) -> Float32Array:
    """Mix the session's direction into the long-term vector, keeping the long-term length.

    The session's share is `evidence / (evidence + evidence_half)`. It is brought to the long-term length before the
    mix, and the mix is brought back to that length, so that scores of inner products stay comparable.

    Args:
        long_term: float32 (dim,). session_vector: float32 (dim,). Neither is changed.
        evidence: at least 0, as `session_vector` returns it.
        evidence_half: the evidence at which both weigh the same, at least 0.

    Returns:
        float32 (dim,), a new array: `long_term` bit for bit with no evidence, no session direction, or where the two
        cancel out exactly; `session_vector` where `long_term` is zero and there is evidence.

    Raises:
        ValueError: different lengths, negative or NaN evidence.

    Cost: O(dim).
    """
    if len(long_term) != len(session_vector):
        raise ValueError(f"a long-term vector of {len(long_term)} and a session vector of {len(session_vector)} differ")
    if not (evidence >= 0 and evidence_half >= 0):
        raise ValueError(f"evidence ({evidence}) and evidence_half ({evidence_half}) must not be negative")
    mixed: Float32Array = _blend(long_term, session_vector, evidence, evidence_half)
    return mixed


@numba.njit(
    types.Tuple((types.float32[::1], types.float64, types.float32[::1]))(
        STRIDED_MATRIX, types.int64, ROWS, BYTES, ROWS, types.int64, types.float64, FLOATS, types.float64
    ),
    **REORDERED,
)
def _session_summary(  # type: ignore[no-untyped-def]
    table, dim, rows, event_types, timestamps_ms, now_ms, half_life_s, type_weights, window_s
):
    total = np.zeros(dim, np.float64)
    evidence = 0.0
    counted = 0
    latest_s = window_s
    for event in range(len(rows)):
        row = rows[event]
        kind = event_types[event]
        age_s = max(np.float64(now_ms - timestamps_ms[event]) / 1000.0, 0.0)
        if row < 0 or row >= len(table) or kind >= len(type_weights) or age_s > window_s:
            continue
        if type_weights[kind] > 0.0:
            counted += 1
            latest_s = min(latest_s, age_s)
        weight = type_weights[kind] * 2.0 ** (-age_s / half_life_s)
        square = 0.0
        for d in range(dim):
            value = np.float64(table[row, d])
            square += value * value
        if not (weight > 0.0 and square > 0.0 and np.isfinite(square)):
            continue
        scale = weight / np.sqrt(square)
        for d in range(dim):
            total[d] += scale * table[row, d]
        evidence += weight
    vector = np.zeros(dim, np.float32)
    if evidence > 0.0:
        for d in range(dim):
            vector[d] = np.float32(total[d] / evidence)
    numbers = np.array([math.log1p(evidence), math.log1p(counted), math.log1p(latest_s)]).astype(np.float32)
    return vector, evidence, numbers


@numba.njit(types.float64(FLOATS), **REORDERED)
def _norm(vector):  # type: ignore[no-untyped-def]
    square = 0.0
    for d in range(len(vector)):
        value = np.float64(vector[d])
        square += value * value
    return np.sqrt(square)


@numba.njit(types.float32[::1](FLOATS, FLOATS, types.float64, types.float64), **REORDERED)
def _blend(long_term, session_vector, evidence, evidence_half):  # type: ignore[no-untyped-def]
    dim = len(long_term)
    long_norm = _norm(long_term)
    session_norm = _norm(session_vector)
    if evidence == 0.0 or session_norm == 0.0:
        return long_term.copy()
    if long_norm == 0.0:
        return session_vector.copy()
    share = 1.0 if np.isinf(evidence) else evidence / (evidence + evidence_half)
    session_scale = share * long_norm / session_norm
    mixed = np.empty(dim, np.float64)
    square = 0.0
    for d in range(dim):
        mixed[d] = (1.0 - share) * long_term[d] + session_scale * session_vector[d]
        square += mixed[d] * mixed[d]
    if square == 0.0:
        return long_term.copy()
    rescale = long_norm / np.sqrt(square)
    result = np.empty(dim, np.float32)
    for d in range(dim):
        result[d] = np.float32(mixed[d] * rescale)
    return result


@numba.njit(
    types.Tuple((types.float32[::1], types.float32[::1], types.float64, types.float32[::1]))(
        FLOATS, types.int64, STRIDED_MATRIX, ROWS, BYTES, ROWS, types.int64, types.float64, FLOATS, types.float64,
        types.float64, types.float64, FLOATS, types.float64,
    ),
    **REORDERED,
)  # fmt: skip
def _blended_session(  # type: ignore[no-untyped-def]
    long_term, read_until_ms, table, rows, event_types, timestamps_ms, now_ms, half_life_s, type_weights, window_s,
    evidence_half, whole_half_life_s, whole_type_weights, whole_window_s,
):  # fmt: skip
    dim = len(long_term)
    unread = rows.copy()
    for event in range(len(rows)):
        if timestamps_ms[event] <= read_until_ms:
            unread[event] = -1
    recent, evidence, _ = _session_summary(
        table, dim, unread, event_types, timestamps_ms, now_ms, half_life_s, type_weights, window_s
    )
    vector, whole_evidence, numbers = _session_summary(
        table, dim, rows, event_types, timestamps_ms, now_ms, whole_half_life_s, whole_type_weights, whole_window_s
    )
    return _blend(long_term, recent, evidence, evidence_half), vector, whole_evidence, numbers
