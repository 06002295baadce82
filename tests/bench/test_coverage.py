from engine.experiments.analysis.metrics import METRICS
from engine_bench.simulation.coverage import TARGET_COVERAGE, CoverageSettings, measure_coverage


def test_every_metric_has_a_target() -> None:
    seen: list[tuple[int, int]] = []
    settings = CoverageSettings(repetitions=4, users=150, items=300, days=7, before_days=7)
    result = measure_coverage(settings, progress=lambda done, total, message: seen.append((done, total)))
    assert seen == [(place, 4) for place in range(1, 5)]
    assert [target["name"] for target in result["targets"]] == [f"coverage_{metric.name}" for metric in METRICS]
    for target, metric in zip(result["targets"], result["metrics"].values(), strict=True):
        assert target["value"] == metric["coverage"]["lift"]["share"]
        assert target["met"] == (target["value"] >= TARGET_COVERAGE)
    assert result["machine"]
