"""Reports of simulated experiments against the truth, assignment and statistics being the engine's own."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from engine.experiments.analysis.metrics import METRICS, TOTALS
from engine_bench.simulation.behaviour import Behaviour
from engine_bench.simulation.coverage import CONTROL, TREATMENT, CoverageSettings, measure_coverage
from engine_bench.simulation.shop import Shop
from engine_bench.simulation.slates import personal_slates, popularity_slates
from engine_bench.simulation.users import Users
from engine_bench.synthetic.world import World, WorldSize

SETTINGS = CoverageSettings(repetitions=80, users=1_000, items=800, seed=3)
# What is certain to hold but once in 10,000 runs of another seed.
CERTAIN = 1e-4


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return measure_coverage(SETTINGS)


@pytest.mark.parametrize("metric", [metric.name for metric in METRICS])
class TestIntervals:
    def test_they_hold_the_truth(self, measured: dict[str, Any], metric: str) -> None:
        figures = measured["metrics"][metric]
        assert figures["true_lift"] > 0.03
        assert figures["unknown"] == 0
        for name in ("lift", "unadjusted"):
            covered = figures["coverage"][name]
            assert covered["count"] >= stats.binom.ppf(CERTAIN, covered["of"], 0.94)
            assert covered["low"] <= covered["share"] <= covered["high"]

    def test_nothing_is_found_where_nothing_is(self, measured: dict[str, Any], metric: str) -> None:
        found = measured["metrics"][metric]["found_where_nothing_is"]
        assert found["count"] <= stats.binom.ppf(1 - CERTAIN, found["of"], 0.06)

    def test_the_estimates_are_around_the_truth(self, measured: dict[str, Any], metric: str) -> None:
        figures = measured["metrics"][metric]
        # The error of one estimate is about half the half width; of the mean of 80, a ninth of that.
        assert figures["mean_lift"] == pytest.approx(figures["true_lift"], abs=4 * figures["mean_half_width"] / 2 / 9)


def test_clicks_are_found_and_a_wrong_truth_would_be(measured: dict[str, Any]) -> None:
    """What the coverage is held against can fail: no lift at all is outside of most intervals."""
    assert measured["metrics"]["item_ctr"]["found"]["share"] > 0.8


def test_the_split_is_as_planned(measured: dict[str, Any]) -> None:
    assert measured["split_mismatches"] <= 2 / SETTINGS.repetitions


def test_the_same_seed_makes_the_same_figures() -> None:
    few = replace(SETTINGS, repetitions=2, users=200, before_days=0)

    def figures(settings: CoverageSettings) -> dict[str, Any]:
        # The machine is told with the moment.
        return {**measure_coverage(settings), "machine": None, "settings": None}

    assert figures(few) == figures(few)
    assert figures(few) != figures(replace(few, seed=4))


def test_the_truth_is_the_mean_of_what_everybody_does() -> None:
    world = World(WorldSize(items=500, users=400), 2)
    behaviour = Behaviour()
    users = Users(world, 400, world.size.end_ms, 7, 1.0)
    size = 400, behaviour.slate_size * behaviour.max_requests
    random = np.random.default_rng(9)
    personal = personal_slates(world, *size, 1.0, random)
    shop = Shop(users, behaviour, {CONTROL: popularity_slates(world, *size), TREATMENT: personal})
    truth = shop.truth()
    for place, name in enumerate(shop.variants):
        rounds = np.array([shop.act(np.full(400, place), random).sum(axis=0) for _ in range(60)])
        for metric in METRICS:
            numerator, denominator = (rounds[:, TOTALS.index(part)] for part in (metric.numerator, metric.denominator))
            values = numerator / denominator
            error = values.std() / np.sqrt(len(values))
            assert values.mean() == pytest.approx(truth[name][metric.name], abs=4.5 * error)
