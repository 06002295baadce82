"""Stage: mix the recent session into the user's long-term embedding."""

from engine.features.session import SessionSignal
from engine.types import Float32Array
from kernels.session import blend


def query_vector(long_term: Float32Array, signal: SessionSignal, evidence_half: float) -> Float32Array:
    """What retrieval searches with: float32 (dim,).

    long_term: float32 (dim,). evidence_half: the evidence at which session and history weigh the same.
    Without evidence, `long_term` unchanged. Cost: O(dim).
    """
    return blend(long_term, signal.vector, signal.evidence, evidence_half) if signal.evidence else long_term
