"""Live states of earlier versions, made into those of today when they are next read."""

import struct
from typing import Final

import numpy as np

from engine.errors import RecordError
from engine.features.record import unpack_keys, unpack_session
from engine.features.seen import in_order, of_keys_alone, of_session, pack_seen
from engine.kernels.bytes import STATE_HEADER, STATE_VERSION
from engine.kernels.counted_users import ENTRY

# Version 1 had neither arrivals of event ids nor the places that a user counts for; both ended in item keys alone.
_HEADERS: Final = {1: struct.Struct("<BIIHHQq"), 2: struct.Struct("<BIIHHQqH")}
_EVENT_BYTES, _ID_BYTES, _ARRIVAL_BYTES, _KEY_BYTES = 17, 8, 4, 8
_LAST_SECOND: Final = 2**32 - 1


def upgraded(blob: bytes) -> bytes:
    """A state of version 1 or 2 as one of today; any other as it is.

    - Ids of version 1 count as of the session's last event, and its user as somebody who has counted for nothing yet.
    - Neither version knew how an item was seen, nor when. The session says it of the latest ones; the others count as
      of the session's last event, and of whoever has bought something as bought: what somebody has bought is not
      offered again because a server was upgraded.

    Raises RecordError for truncated bytes.
    """
    header = _HEADERS.get(blob[0])
    if header is None:
        return blob
    if len(blob) < header.size:
        raise RecordError(f"live state of {len(blob)} bytes is truncated")
    _, interactions, purchases, events, ids, log, offset, *rest = header.unpack_from(blob)
    places = rest[0] if rest else 0
    session_end = header.size + _EVENT_BYTES * events
    ids_end = session_end + _ID_BYTES * ids
    places_end = ids_end + (_ARRIVAL_BYTES * ids if rest else 0) + ENTRY * places
    if len(blob) < places_end or (len(blob) - places_end) % _KEY_BYTES:
        raise RecordError(f"live state of {len(blob)} bytes is truncated")
    session = unpack_session(blob[header.size : session_end])
    last_s = int(session.timestamps_ms[-1]) // 1000 if len(session.timestamps_ms) else 0
    last_s = min(max(last_s, 0), _LAST_SECOND)
    arrivals = b"" if rest else struct.pack("<I", last_s) * ids
    keys = unpack_keys(blob[places_end:])
    known = of_session(session)
    seen = known.joined(of_keys_alone(keys[~np.isin(keys, known.item_keys)], last_s, purchases))
    begin = STATE_HEADER.pack(STATE_VERSION, interactions, purchases, events, ids, log, offset, places)
    return b"".join((begin, blob[header.size : ids_end], arrivals, blob[ids_end:places_end], pack_seen(in_order(seen))))
