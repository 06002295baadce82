from engine_bench.experiments import measure_experiments


def test_figures_of_few_units() -> None:
    found = measure_experiments(20_000)
    assert found["units"] == 20_000
    assert found["units_per_s"] > 0
    assert found["single_us"] > 0
    # By chance alone: four standard errors.
    assert found["largest_share_error"] < 4 * (0.25 / 19_000) ** 0.5
    assert [target["name"] for target in found["targets"]] == ["units_per_s", "largest_share_error"]
