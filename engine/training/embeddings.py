"""What a retrieval model is, however it was learned: one vector an item, one vector a moment of a user."""

from typing import Protocol

from engine.features.history import Histories, HistoryStates
from engine.types import Float32Array, Int64Array


class EmbeddingModel(Protocol):
    """Items and users in one space, compared by inner product."""

    @property
    def item_vectors(self) -> Float32Array:
        """float32 (items, dim), C-contiguous, in the order of the data set's item rows."""
        ...

    def user_vectors(self, histories: Histories, states: HistoryStates, demographic_codes: Int64Array) -> Float32Array:
        """The query vector of each state, from its events so far and nothing later.

        Args:
            histories: events whose rows index item_vectors.
            states: n moments in them; a state without events is allowed.
            demographic_codes: int64 (users, 3), see Dataset.demographic_codes.

        Returns:
            float32 (n, dim), C-contiguous.
        """
        ...
