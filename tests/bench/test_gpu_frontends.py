"""The bench of front ends before a device process, rehearsed in small on the processor."""

from pathlib import Path

from engine_bench.gpu import make_world
from engine_bench.gpu_frontends import measure_frontends

ON_THE_PROCESSOR = {"retrieval": "cpu", "ranking": "cpu"}


def test_a_rehearsal_on_the_processor_with_two_front_ends(tmp_path: Path) -> None:
    dataset, vectors, bundle = make_world(1_000, tmp_path, lambda *_: None)
    fixed = (bundle, dataset, vectors, tmp_path / "bundles-1000", tmp_path / "work", ON_THE_PROCESSOR)
    report = measure_frontends(*fixed, front_ends=(1, 2), callers=(3,), seconds=0.5)
    assert [(run["front_ends"], run["callers"]) for run in report["runs"]] == [(1, 3), (2, 3)]
    assert report["left_out"] == []
    for run in report["runs"]:
        assert run["requests_per_s"] == round(run["count"] / 0.5, 1) > 0
        assert 0 < run["best_ms"] <= run["p50_ms"] <= run["p99_ms"]
        assert run["bad"] == 0
        assert run["device_cores"] > 0
        assert run["front_end_cores"] > 0
        assert run["client_cores"] > 0
    # Out of time, nothing further is begun, and what is missing is said.
    late = measure_frontends(*fixed, front_ends=(1, 2), callers=(3,), seconds=0.5, limit_s=0.0, device_process=False)
    assert late["runs"] == []
    assert late["left_out"] == [{"front_ends": 1, "callers": 3}, {"front_ends": 2, "callers": 3}]
