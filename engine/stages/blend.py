"""Stage: mix the recent session into the user's long-term embedding."""

from dataclasses import dataclass

from engine.config.serving import BlendConfig
from engine.features.session import SessionSettings, SessionSignal
from engine.features.state import Session
from engine.kernels.session import blended_session
from engine.types import Float32Array, Int64Array

# Clocks of machines differ by less; a moment of reading that is further ahead was never one.
_MAX_AHEAD_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class BlendSettings:
    """What of a session counts, and the evidence at which session and history weigh the same."""

    session: SessionSettings
    evidence_half: float

    @staticmethod
    def of(config: BlendConfig) -> "BlendSettings":
        return BlendSettings(SessionSettings.of(config), config.evidence_half)


def blend_session(
    long_term: Float32Array,
    embedded_until_ms: int,
    session: Session,
    session_rows: Int64Array,
    item_vectors: Float32Array,
    now_ms: int,
    settings: BlendSettings,
    read_by_ranker: SessionSettings,
) -> tuple[Float32Array, SessionSignal]:
    """What retrieval searches with, float32 (dim,), and what the ranker reads of the session.

    Only events after those that the long-term vector has read are mixed into it. Counting the others again, as a plain
    mean without their order, undoes what the user tower made of them (docs/adr/0008). The ranker reads the whole
    session, the part that the embedding has read as well: it learned beside both.

    Args:
        long_term: float32 (dim,), which has read the user's events up to embedded_until_ms. A moment far in the future
            is of a clock that was wrong, and tells nothing: all of the session counts as unread.
        session_rows: int64 (n,), the rows of the session's items, -1 for unknown ones.
        item_vectors: float32 (items, dim), may be a strided view.
        read_by_ranker: which events the ranker counts, and how much.

    Returns:
        A new vector, without unread events `long_term` bit for bit; and the signal of all events.

    Cost: O(n * dim).
    """
    counted = settings.session
    latest_ms = int(session.timestamps_ms[-1]) if len(session.timestamps_ms) else 0
    if embedded_until_ms > max(now_ms, latest_ms) + _MAX_AHEAD_MS:
        embedded_until_ms = 0
    vector, whole, evidence, dense = blended_session(
        long_term,
        embedded_until_ms,
        item_vectors,
        session_rows,
        session.event_types,
        session.timestamps_ms,
        now_ms,
        counted.half_life_s,
        counted.type_weights,
        counted.window_s,
        settings.evidence_half,
        read_by_ranker.half_life_s,
        read_by_ranker.type_weights,
        read_by_ranker.window_s,
    )
    return vector, SessionSignal(whole, evidence, dense)
