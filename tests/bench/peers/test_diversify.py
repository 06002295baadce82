"""MMR without a kernel, and the library beside both."""

import numpy as np
import pytest

from engine.kernels.mmr import mmr_slate
from engine.kernels.unit_rows import gather_unit_rows
from engine_bench.peers import stage_diversify
from engine_bench.peers.greedy import numpy_mmr
from engine_bench.peers.sample import StageInputs
from engine_bench.peers.stage_diversify import measure_diversify


@pytest.mark.parametrize("relevance_weight", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize(("count", "k"), [(200, 50), (30, 50), (1, 1)])
def test_numpy_picks_what_the_kernel_picks(count: int, k: int, relevance_weight: float) -> None:
    draw = np.random.default_rng(count)
    units = gather_unit_rows(draw.standard_normal((count, 16)).astype(np.float32), np.arange(count), 16)
    relevance = draw.random(count, dtype=np.float32)
    picks = numpy_mmr(relevance, units, relevance_weight, k)
    assert picks.tolist() == mmr_slate(relevance, units, relevance_weight, k).picks.tolist()


def test_the_rows_of_the_report(inputs: list[StageInputs]) -> None:
    rows = {row["name"]: row for row in measure_diversify(inputs, 8, (), lambda done, total: None)}
    assert rows["engine"]["agreement"] == 1.0
    # Two items may be as good as each other but for the order in which their products were summed.
    assert rows["numpy"]["agreement"] > 0.95
    # The library takes a cosine below 0 for 0, which changes places late in a slate.
    assert "skipped" in rows["pyversity"] or rows["pyversity"]["agreement"] > 0.3


def test_what_is_not_there_says_why(inputs: list[StageInputs], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_diversify, "missing", lambda name: f"{name} is not installed")
    rows = {row["name"]: row for row in measure_diversify(inputs, 2, ["numpy"], lambda done, total: None)}
    assert rows["pyversity"]["skipped"] == "pyversity is not installed"
    assert rows["numpy"]["skipped"] == "left out by --skip"
