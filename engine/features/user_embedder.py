"""What turns the histories of users into query vectors."""

from typing import Protocol

from engine.features.history import Histories, HistoryStates
from engine.types import Float32Array, Int64Array


class UserEmbedder(Protocol):
    """Query vectors from histories whose rows are the bundle's."""

    def __call__(self, histories: Histories, states: HistoryStates, demographic_codes: Int64Array) -> Float32Array:
        """float32 (n, dim): one vector a state; demographic_codes is int64 (users, 3)."""
        ...
