"""Plans from an archive, held against an oracle that knows nothing of moments: users drawn again and again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.plan import units_needed
from engine.experiments.analysis.plan_read import WEEKS, MetricPlan, plan_from_archive
from engine.experiments.analysis.report_query import ReportQuery
from tests.engine.experiments.analysis.archive import DAY_MS, START_MS, event, exposure, write

USERS, LIFT = 300, 0.1


@pytest.fixture(scope="module")
def users() -> list[tuple[int, int]]:
    """Requests of each user, and on how many of them they clicked."""
    rng = np.random.default_rng(4)
    requests = rng.integers(1, 6, USERS)
    return [(int(n), int(rng.binomial(n, rate))) for n, rate in zip(requests, rng.beta(1, 4, USERS), strict=True)]


def plans(home: Path, users: list[tuple[int, int]], **question: float) -> dict[str, MetricPlan]:
    exposures, events = [], []
    for number, (requests, clicked) in enumerate(users):
        for turn in range(requests):
            at = START_MS + (number * 7 % 10) * DAY_MS + turn * 3_600_000
            exposures.append(exposure(f"u{number}", "engine", at))
            if turn < clicked:
                request_id = exposures[-1]["request_id"]
                events.append(event(f"u{number}", "click", "a", at + 1_000, request_id=request_id))
    asked = ReportQuery("worth")
    asked = replace(asked, rules=replace(asked.rules, **question)) if question else asked
    _, found = plan_from_archive(Archive.within(write(home, exposures, events)), asked, LIFT, (1, 1), 0.8)
    return {plan.metric: plan for plan in found}


def test_the_spread_is_that_of_people_drawn_again(tmp_path: Path, users: list[tuple[int, int]]) -> None:
    """sqrt(n) times the standard error of the metric, by its value; the bootstrap needs no formula for that."""
    plan = plans(tmp_path, users)["request_ctr"]
    counts, rng = np.array(users), np.random.default_rng(0)
    drawn = [counts[rng.integers(0, USERS, USERS)].sum(axis=0) for _ in range(4000)]
    rates = np.array([clicks / requests for requests, clicks in drawn])
    assert plan.value == pytest.approx(counts[:, 1].sum() / counts[:, 0].sum())
    assert plan.spread == pytest.approx(np.sqrt(USERS) * rates.std() / rates.mean(), rel=0.05)


def test_units_are_those_with_which_a_simulated_test_finds_the_lift(
    tmp_path: Path, users: list[tuple[int, int]]
) -> None:
    """With the planned units, a lift of 10% is found in about 80 of 100 experiments, by the report's own rule."""
    plan = plans(tmp_path, users)["request_ctr"]
    counts, rng, each = np.array(users, float), np.random.default_rng(1), plan.units // 2
    found = 0
    for _ in range(400):
        control, treatment = counts[rng.integers(0, USERS, each)], counts[rng.integers(0, USERS, each)].copy()
        treatment[:, 1] *= 1.0 + LIFT
        logs, variances = [], []
        for side in (control, treatment):
            rate = side[:, 1].sum() / side[:, 0].sum()
            influence = (side[:, 1] - rate * side[:, 0]) / side[:, 0].mean()
            logs.append(np.log(rate))
            variances.append(influence.var() / each / rate**2)
        found += abs(logs[1] - logs[0]) > 1.96 * np.sqrt(sum(variances))
    assert 0.72 <= found / 400 <= 0.88


def test_twice_the_people_are_found_in_half_the_days(tmp_path: Path, users: list[tuple[int, int]]) -> None:
    """The spread is a property of users, not of how many were looked at."""
    few, many = plans(tmp_path / "few", users), plans(tmp_path / "many", [*users, *users])
    assert many["request_ctr"].spread == pytest.approx(few["request_ctr"].spread, rel=0.01)
    assert many["request_ctr"].units == pytest.approx(few["request_ctr"].units, rel=0.02)
    assert many["request_ctr"].days == pytest.approx(few["request_ctr"].days / 2, rel=0.1)
    assert list(few["request_ctr"].detectable) == sorted(few["request_ctr"].detectable, reverse=True)


@pytest.mark.parametrize(("apart_ms", "days"), [(2 * DAY_MS, 2.0), (DAY_MS // 2, 1.0), (0, 1.0)])
def test_people_come_by_the_day(tmp_path: Path, apart_ms: int, days: float) -> None:
    """Six users over the period, which counts as a day at least; the plan's days are its users by that."""
    shown = [exposure(f"u{number}", "engine", START_MS + apart_ms * (number % 2)) for number in range(6)]
    clicks = [event("u0", "click", "a", START_MS + 1_000, request_id=shown[0]["request_id"])]
    archive = Archive.within(write(tmp_path, shown, clicks))
    traffic, [plan, *_] = plan_from_archive(archive, ReportQuery("worth"), LIFT, (1, 3), 0.8)
    assert (traffic.units, traffic.days, traffic.units_per_day) == (6, days, 6 / days)
    assert plan.days == pytest.approx(plan.units * days / 6)
    for weeks, lift in zip(WEEKS, plan.detectable, strict=True):
        # With as many users as come in so many weeks, the lift is one whose plan takes so many users.
        assert units_needed(plan.spread, lift, (1, 3), 0.05, 0.8) == pytest.approx(6 / days * 7 * weeks, abs=1)


def test_who_must_be_surer_waits_longer(tmp_path: Path, users: list[tuple[int, int]]) -> None:
    usual, surer = plans(tmp_path / "usual", users), plans(tmp_path / "surer", users, alpha=0.01)
    # (2.576 + 0.842)^2 / (1.960 + 0.842)^2
    assert surer["request_ctr"].units / usual["request_ctr"].units == pytest.approx(1.488, rel=0.01)
