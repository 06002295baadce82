"""Stage: mix the recent session into the user's long-term embedding."""

from dataclasses import dataclass

import numpy as np

from engine.config import BlendConfig
from engine.features.session import SessionSettings
from engine.types import Float32Array, Int64Array, Session
from kernels.session import blend, session_vector


@dataclass(frozen=True, slots=True)
class BlendSettings:
    """What of a session counts, and the evidence at which session and history weigh the same."""

    session: SessionSettings
    evidence_half: float

    @staticmethod
    def of(config: BlendConfig) -> "BlendSettings":
        return BlendSettings(SessionSettings.of(config), config.evidence_half)


def query_vector(
    long_term: Float32Array,
    embedded_until_ms: int,
    session: Session,
    session_rows: Int64Array,
    item_vectors: Float32Array,
    now_ms: int,
    settings: BlendSettings,
) -> Float32Array:
    """What retrieval searches with: float32 (dim,).

    Only events after those that the long-term vector has read are mixed in. Counting the others again, as a plain
    mean without their order, undoes what the user tower made of them (docs/adr/0008).

    long_term: float32 (dim,), which has read the user's events up to embedded_until_ms.
    session_rows: int64 (n,), the rows of the session's items, -1 for unknown ones.
    item_vectors: float32 (items, dim), may be a strided view. Without unread events, `long_term` unchanged.
    Cost: O(n * dim).
    """
    unread = session.timestamps_ms > embedded_until_ms
    if not unread.any():
        return long_term
    vector, evidence = session_vector(
        item_vectors,
        len(long_term),
        np.where(unread, session_rows, -1),
        session.event_types,
        session.timestamps_ms,
        now_ms,
        settings.session.half_life_s,
        settings.session.type_weights,
        settings.session.window_s,
    )
    return blend(long_term, vector, evidence, settings.evidence_half)
