"""The bytes that Redis holds for a user: packed, versioned, and safe to read from anywhere.

Record (little-endian): version u8, dim u16, collaborative dim u16, profile dim u16, generation i64,
interaction count u32, purchase count u32, embedded until i64 (Unix ms), then three strings (u8 length, UTF-8), then the
embedding and the collaborative vector as float16 and the profile as float32 (days do not fit into float16).
Session: 17 bytes an event, oldest first. Item keys alone, int64, are what earlier versions held of seen items.
"""

import struct
from typing import Final

import numpy as np

from engine.errors import RecordError
from engine.features.state import Session, UserRecord
from engine.kernels.bytes import EVENT, SESSION_EVENT
from engine.types import Demographics, Float32Array, Int64Array

RECORD_VERSION: Final = 2
_HEADER: Final = struct.Struct("<BHHHqIIq")
_FLOAT16_MAX: Final = 65504.0


def pack_record(record: UserRecord) -> bytes:
    """One user record as bytes; vectors lose precision to float16 and are clipped to its range."""
    strings = b"".join(
        bytes([len(encoded)]) + encoded
        for encoded in (
            value.encode()[:255]
            for value in (
                record.demographics.age_group,
                record.demographics.location,
                record.demographics.signup_source,
            )
        )
    )
    header = _HEADER.pack(
        RECORD_VERSION,
        len(record.embedding),
        len(record.collaborative),
        len(record.profile),
        record.generation,
        record.interaction_count,
        record.purchase_count,
        record.embedded_until_ms,
    )
    vectors = _pack_float16(record.embedding) + _pack_float16(record.collaborative)
    return header + strings + vectors + record.profile.astype("<f4").tobytes()


def unpack_record(blob: bytes) -> UserRecord:
    """The record of `pack_record`. Raises RecordError for other versions and for truncated bytes."""
    try:
        header = _HEADER.unpack_from(blob)
    except struct.error:
        raise RecordError(f"user record of {len(blob)} bytes is truncated") from None
    version, dim, collaborative_dim, profile_dim, generation, interactions, purchases, until_ms = header
    if version != RECORD_VERSION:
        raise RecordError(f"user record version {version} is unknown; this engine reads {RECORD_VERSION}")
    strings, offset = _strings(blob)
    narrow = dim + collaborative_dim
    expected = offset + 2 * narrow + 4 * profile_dim
    if len(blob) != expected:
        raise RecordError(f"user record of {len(blob)} bytes where {expected} are expected")
    vectors = np.frombuffer(blob, "<f2", narrow, offset).astype(np.float32)
    profile = np.frombuffer(blob, "<f4", profile_dim, offset + 2 * narrow).astype(np.float32)
    embedding, collaborative = vectors[:dim], vectors[dim:]
    users = Demographics(*strings)
    return UserRecord(generation, embedding, collaborative, profile, interactions, purchases, users, until_ms)


def demographics_of(blob: bytes) -> Demographics:
    """The demographics of a packed record alone. Raises RecordError as `unpack_record` does. Cost: about 1 µs."""
    if len(blob) < _HEADER.size or blob[0] != RECORD_VERSION:
        raise RecordError(f"user record of {len(blob)} bytes is truncated or of another version")
    return Demographics(*_strings(blob)[0])


def _strings(blob: bytes) -> tuple[list[str], int]:
    """The three strings after the header, and where they end."""
    offset = _HEADER.size
    strings = []
    for _ in range(3):
        length = blob[offset] if offset < len(blob) else 0
        strings.append(blob[offset + 1 : offset + 1 + length].decode(errors="ignore"))
        offset += 1 + length
    return strings, offset


def unpack_keys(blob: bytes | None) -> Int64Array:
    """Item keys: int64 (n,), read-only. Raises RecordError for a length that is no multiple of 8."""
    if not blob:
        return np.empty(0, np.int64)
    if len(blob) % 8:
        raise RecordError(f"seen set of {len(blob)} bytes is truncated")
    return np.frombuffer(blob, "<i8")


def pack_session(session: Session) -> bytes:
    """A session's events, oldest first."""
    events = np.empty(len(session.item_keys), SESSION_EVENT)
    events["item_key"] = session.item_keys
    events["timestamp_ms"] = session.timestamps_ms
    events["event_type"] = session.event_types
    return events.tobytes()


def unpack_session(blob: bytes | None) -> Session:
    """The session of `pack_session`; empty for None. Raises RecordError for a wrong length."""
    if not blob:
        return Session.empty()
    if len(blob) % EVENT:
        raise RecordError(f"session of {len(blob)} bytes is truncated")
    events = np.frombuffer(blob, SESSION_EVENT)
    return Session(
        np.ascontiguousarray(events["item_key"]),
        np.ascontiguousarray(events["event_type"]),
        np.ascontiguousarray(events["timestamp_ms"]),
    )


def _pack_float16(vector: Float32Array) -> bytes:
    return np.clip(vector, -_FLOAT16_MAX, _FLOAT16_MAX).astype("<f2").tobytes()
