"""The towers on ONNX Runtime: new items and refreshed users get their vectors without PyTorch."""

from pathlib import Path

import numpy as np
import onnxruntime

from engine.errors import BundleError
from engine.features.content import ContentFeatures
from engine.features.history import Histories, HistoryStates, window_of
from engine.types import Float32Array, Int64Array


class OnnxItemTower:
    """Vectors of items from their content. Safe for concurrent calls.

    Raises BundleError when the file is not a model with the expected inputs.
    """

    def __init__(self, path: Path, intra_op_threads: int = 1) -> None:
        self._session = _open(path, intra_op_threads, ("token_ids", "dense"))
        self.dim: int = self._session.get_outputs()[0].shape[1]

    def embed(self, features: ContentFeatures, batch: int = 4096) -> Float32Array:
        """float32 (n, dim) of n items, `batch` at a time. Cost: a few microseconds an item."""
        out = np.zeros((len(features), self.dim), np.float32)
        for start in range(0, len(features), batch):
            part = slice(start, start + batch)
            inputs = {"token_ids": features.token_ids[part], "dense": features.dense[part]}
            out[part] = self._session.run(None, inputs)[0]
        return out


class OnnxUserTower:
    """Query vectors of users from their last `window` events. Safe for concurrent calls.

    Raises BundleError when the file is not a model with the expected inputs.
    """

    def __init__(self, path: Path, intra_op_threads: int = 1) -> None:
        self._session = _open(
            path, intra_op_threads, ("item_vectors", "event_types", "ages_s", "valid", "demographics")
        )
        self.window: int
        self.dim: int
        _, self.window, self.dim = self._session.get_inputs()[0].shape

    def embed(
        self,
        histories: Histories,
        states: HistoryStates,
        item_vectors: Float32Array,
        demographic_codes: Int64Array,
        batch: int = 256,
    ) -> Float32Array:
        """The query vector of each state; the same as TwoTowerModel.user_vectors gives.

        Args:
            histories: events whose rows index item_vectors.
            states: n moments in them; one without events gets the vector of its demographics alone.
            item_vectors: float32 (items, dim), of the same training run as this tower.
            demographic_codes: int64 (users, 3), indexed by states.users.
            batch: states a call; bounds memory to about batch * window * (dim + window) * 16 bytes.

        Returns:
            float32 (n, dim).

        Cost: about 1 ms a state on one core at window 100, dim 64, 2 layers.
        """
        out = np.zeros((len(states), self.dim), np.float32)
        for start in range(0, len(states), batch):
            part = HistoryStates(states.users[start : start + batch], states.lengths[start : start + batch])
            window = window_of(histories, part, self.window)
            inputs = {
                "item_vectors": item_vectors[np.maximum(window.rows, 0)],
                "event_types": window.event_types,
                "ages_s": window.ages_s,
                "valid": window.rows >= 0,
                "demographics": demographic_codes[part.users],
            }
            out[start : start + len(part)] = self._session.run(None, inputs)[0]
        return out


def _open(path: Path, intra_op_threads: int, input_names: tuple[str, ...]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    # Threads that spin for work slow down whatever runs next on their cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        raise BundleError(f"{path}: not a usable model: {str(error).splitlines()[0]}") from None
    names = tuple(entry.name for entry in session.get_inputs())
    if names != input_names:
        raise BundleError(f"{path}: inputs are {', '.join(names)}; wanted are {', '.join(input_names)}")
    return session
