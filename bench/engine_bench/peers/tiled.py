"""Ranking with the tiled graph: the user's columns repeated beside every candidate's."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from engine.types import Float32Array, Int64Array, RankingContext


class TiledRanker:
    """Scores candidates by a graph of engine_bench.peers.tiled_export. Implements engine.stages.rank.Ranker."""

    def __init__(
        self, path: Path, item_table: Float32Array, item_dynamic: Float32Array, intra_op_threads: int = 1
    ) -> None:
        """Open the graph, with the session options of the serving ranker.

        Args:
            item_table: float32 (items, columns). item_dynamic: float32 (items, counts).
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._item_table = item_table
        self._item_dynamic = item_dynamic

    def matrix(self, context: RankingContext, rows: Int64Array) -> Float32Array:
        """float32 (n, columns), for rows int64 (n,)."""
        user = np.concatenate(
            [context.query, context.session, context.collaborative, context.dense, context.codes.astype(np.float32)]
        )
        return np.concatenate([np.tile(user, (len(rows), 1)), self._item_table[rows], self._item_dynamic[rows]], axis=1)

    def run(self, matrix: Float32Array) -> Float32Array:
        """Click probabilities, float32 (n,), of a matrix."""
        clicks: Float32Array = self._session.run(["click"], {"matrix": matrix})[0]
        return clicks

    def score(self, context: RankingContext, rows: Int64Array) -> Float32Array:
        """Click probability of each candidate: float32 (n,) for rows int64 (n,), in their order."""
        return self.run(self.matrix(context, rows))
