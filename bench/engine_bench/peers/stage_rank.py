"""Stage rank: the serving graph against the same ranker over a dense matrix, one thread each."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.errors import BundleError
from engine.stages.rank import Ranker
from engine_bench.peers.sample import StageInputs
from engine_bench.peers.tiled import TiledRanker
from engine_bench.timing import in_turns, percentiles

SCORE_TOLERANCE = 1e-4


def largest_difference(serving: Ranker, tiled: TiledRanker, inputs: Sequence[StageInputs]) -> float:
    """Of the probabilities that both give to the candidates of these requests."""
    return max(
        float(np.abs(serving.score(each.context, each.rows) - tiled.score(each.context, each.rows)).max())
        for each in inputs
    )


def measure_rank(
    serving: Ranker,
    tiled: TiledRanker,
    inputs: Sequence[StageInputs],
    calls: int,
    progress: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """The rows of the report.

    Raises BundleError where the two rankers do not say the same: what is then measured is two different models.
    """
    difference = largest_difference(serving, tiled, inputs)
    if not difference <= SCORE_TOLERANCE:
        raise BundleError(
            f"the tiled ranker's probabilities differ from the bundle's by {difference:.2g}: the bundle was made by "
            "another version; remove its directory from the cache, and it is made again"
        )
    matrices = [tiled.matrix(each.context, each.rows) for each in inputs]
    count = len(inputs)
    took = in_turns(
        {
            "engine": lambda call: serving.score(inputs[call % count].context, inputs[call % count].rows),
            "tiled": lambda call: tiled.score(inputs[call % count].context, inputs[call % count].rows),
            "tiled_graph": lambda call: tiled.run(matrices[call % count]),
        },
        calls,
        progress,
    )
    titles = {
        "engine": "user's half once, items' rows gathered in the graph",
        "tiled": "user's columns tiled in NumPy, one dense matrix",
        "tiled_graph": "the same, the matrix being there already",
    }
    size = {"candidates": len(inputs[0].rows), "threads": 1}
    matrix = {"columns": matrices[0].shape[1], "largest_difference": difference}
    return [
        {
            "stage": "rank",
            "name": name,
            "title": title,
            **percentiles(took[name]),
            "agreement": 1.0,
            "parameters": size if name == "engine" else size | matrix,
        }
        for name, title in titles.items()
    ]
