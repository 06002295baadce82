"""The ranker on ONNX Runtime: one graph, over item tables that stay where they are."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from engine.adapters.onnx.ranker_graph import CONTEXT_INPUTS, check_graph, check_tables
from engine.errors import BundleError, EngineError, described
from engine.features.schema import FeatureSchema
from engine.kernels.prefetch import prefetch_rows
from engine.logs import OncePerInterval
from engine.types import Float32Array, Int64Array, RankingContext

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=30.0))

# Of so many in one call the first are still in the cache when the last have been fetched. In turns, with and without,
# for 1, 2, 4, 8 and 16 thousand: 0.69 and 0.74 ms, 1.34 and 1.42, 2.78 and 2.81, 5.84 and 5.69, 15.0 and 14.4.
_PREFETCHED_ROWS = 4096


class OnnxRanker:
    """Scores candidates with a bundle's ranker.onnx: a Ranker and a BatchRanker. Safe for concurrent calls.

    Neither table is ever copied: worker processes that map one file share its pages, and counts that
    are written into `item_dynamic` reach the very next score.
    """

    def __init__(
        self,
        path: Path,
        schema: FeatureSchema,
        item_table: Float32Array,
        item_dynamic: Float32Array,
        intra_op_threads: int = 1,
    ) -> None:
        """Open the graph and hold it against the schema and the tables.

        Args:
            path: ranker.onnx.
            schema: of the same bundle.
            item_table: float32 (items, schema.table_width), C-contiguous; may be read-only.
            item_dynamic: float32 (items, len(ITEM_DYNAMIC)), C-contiguous.
            intra_op_threads: per call; 1 lets concurrent requests share the cores instead.

        Raises:
            BundleError: the file is no ONNX graph, or its inputs, the schema and the tables do not fit each other.
        """
        check_tables(item_table, item_dynamic, schema)
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Threads that spin between two calls slow whatever else runs on the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise BundleError(f"{path}: not a usable ONNX graph: {str(error).splitlines()[0]}") from error
        check_graph(self._session, path, schema)
        # A session reads a contiguous array where it lies. Plain runs over arrays took 0.88 ms for 1,000 candidates
        # where IOBinding took 0.91 and runs over OrtValues 1.05.
        self._tables = {"item_table": item_table, "item_dynamic": item_dynamic}
        self._item_count = len(item_table)

    def score(self, context: RankingContext, rows: Int64Array) -> Float32Array:
        """Click probability of each candidate: float32 (n,) for rows int64 (n,), in their order."""
        clicks: Float32Array = self.score_batch(
            context.query[None],
            context.session[None],
            context.collaborative[None],
            context.dense[None],
            context.codes[None],
            rows[None],
        )[0]
        return clicks

    def score_many(self, requests: Sequence[tuple[RankingContext, Int64Array]]) -> list[Float32Array | EngineError]:
        """Click probabilities of several requests' candidates, in step; see engine.batching.batched.BatchRanker.

        One call, in which the shorter lists are padded to the longest; where it fails, one for each request.
        """
        if len(requests) > 1:
            rows = np.zeros((len(requests), max(len(rows) for _, rows in requests)), np.int64)
            for line, (_, given) in enumerate(requests):
                rows[line, : len(given)] = given
            try:
                inputs = {
                    name: np.stack([getattr(context, name) for context, _ in requests]) for name in CONTEXT_INPUTS
                }
                scores = self.score_batch(rows=rows, **inputs)
                return [line[: len(given)].copy() for line, (_, given) in zip(scores, requests, strict=True)]
            except (EngineError, ValueError) as error:
                log.warning("a batch of %d could not be ranked as one: %s", len(requests), described(error))
        return [self._answer(context, given) for context, given in requests]

    def _answer(self, context: RankingContext, rows: Int64Array) -> Float32Array | EngineError:
        try:
            return self.score(context, rows)
        except EngineError as error:
            return error

    def score_batch(
        self,
        query: Float32Array,
        session: Float32Array,
        collaborative: Float32Array,
        dense: Float32Array,
        codes: Int64Array,
        rows: Int64Array,
    ) -> Float32Array:
        """Click probabilities of B requests with N candidates each.

        Args:
            query, session (B, dim), collaborative (B, c), dense (B, d): float32. codes (B, C), rows (B, N): int64.

        Returns:
            float32 (B, N).

        Raises:
            EngineError: an input of another shape than the graph's, a row outside the tables, or a score that is not
                finite.
        """
        if rows.size == 0:
            return np.empty(rows.shape, np.float32)
        # Negative rows would silently count from the table's end.
        if rows.min() < 0 or rows.max() >= self._item_count:
            raise EngineError(f"ranker: candidate rows must lie in [0, {self._item_count})")
        inputs = {
            "query": query, "session": session, "collaborative": collaborative, "dense": dense, "codes": codes,
            "rows": rows,
        }  # fmt: skip
        if rows.size <= _PREFETCHED_ROWS:
            # Rows lie all over tables of hundreds of megabytes, and the graph would wait for one after the other.
            for table in self._tables.values():
                prefetch_rows(table, rows.reshape(-1))
        try:
            clicks = self._session.run(["click"], inputs | self._tables)[0]
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise EngineError(f"ranker: {str(error).splitlines()[0]}") from error
        if not np.isfinite(clicks).all():
            raise EngineError("ranker: a score is not finite")
        scores: Float32Array = clicks
        return scores
