"""The order of a load test's runs, against systems whose capacity is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from engine_bench import load_runs
from engine_bench.load_driver import Answer, Ask, Schedule, Status
from engine_bench.load_runs import BOUNDS_MS, Runs, calibrate, find_rates

CAPACITY = 130.0


@dataclass
class Limited:
    """Answers at once up to a rate, and refuses everything past it."""

    capacity: float

    def asked_by(self, schedule: Schedule, user_ids: Sequence[str]) -> Ask:
        status = Status.OK if schedule.rate <= self.capacity else Status.EXHAUSTED

        async def ask(_: int) -> Answer:
            return Answer(status)

        return ask


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    # What is tested is the order of runs; the machine that tests run on may be late, and too late for these bounds.
    monkeypatch.setattr(load_runs, "_FEWEST_REQUESTS", 1)
    monkeypatch.setattr(load_runs, "BOUNDS_MS", (10_000.0, 9_000.0))
    return Runs(Limited(CAPACITY), ["u"], 0, lambda done, total, message: None)


async def test_the_capacity_is_found_and_repeated(runs: Runs) -> None:
    high, low = await find_rates(runs, "poisson", 0.1, 2, ceiling_per_s=1000.0)
    assert (high["bound_ms"], low["bound_ms"]) == (10_000.0, 9_000.0)
    for rate in (high, low):
        assert rate["per_s"] <= CAPACITY <= rate["per_s"] * 1.06
        assert (rate["held"], rate["repeats"], rate["ended_by"]) == (2, 2, "server")
    # What one search has learned the other knows.
    assert not any("9000" in run["name"] for run in runs.done if run["name"].startswith("search"))
    constant = [run for run in runs.done if run["arrivals"] == "constant"]
    assert all(run["name"].startswith("constant arrivals") for run in constant)
    assert len(constant) == len(BOUNDS_MS)


async def test_a_search_that_the_ceiling_ends_says_so(runs: Runs) -> None:
    high, _ = await find_rates(runs, "constant", 0.1, 1, ceiling_per_s=100.0)
    assert (high["per_s"], high["ended_by"]) == (100.0, "generator")


async def test_a_system_that_bears_nothing_and_a_machine_that_bears_nothing(runs: Runs) -> None:
    runs.target = Limited(0.0)
    assert [rate["per_s"] for rate in await find_rates(runs, "poisson", 0.1, 1, 1000.0)] == [0.0, 0.0]
    made = len(runs.done)
    assert [rate["per_s"] for rate in await find_rates(runs, "poisson", 0.1, 1, 0.0)] == [0.0, 0.0]
    assert len(runs.done) == made


@pytest.mark.parametrize(("limit_ms", "ceiling", "attempts"), [(10_000.0, 400.0, 4), (-1.0, 0.0, 3)])
async def test_the_calibration_ends_where_the_generator_or_the_server_does(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, limit_ms: float, ceiling: float, attempts: int
) -> None:
    monkeypatch.setattr(load_runs, "_CALIBRATION_S", 0.1)
    monkeypatch.setattr(load_runs, "_CALIBRATION_LATENESS_MS", limit_ms)
    runs.target = Limited(400.0)
    assert await calibrate(runs, "poisson") == ceiling
    assert [run["valid"] for run in runs.done] == [limit_ms > 0] * attempts


async def test_a_generator_too_late_for_one_bound_tells_its_search_nothing(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_runs, "BOUNDS_MS", (10_000.0, 0.0))
    high, low = await find_rates(runs, "constant", 0.1, 1, ceiling_per_s=100.0)
    assert high["per_s"] == 100.0
    # Nobody is in time for 0 ms; so its own search has to ask, again and again, and says who failed.
    assert (low["per_s"], low["ended_by"]) == (0.0, "generator")
    assert sum(run["name"] == "search p99 <= 0 ms" for run in runs.done) % 3 == 0


async def test_slow_rates_run_for_longer(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_runs, "_FEWEST_REQUESTS", 20)
    for rate, seconds in ((400.0, 0.1), (100.0, 0.2), (10.0, 0.4)):
        _, made = await runs.at_bound("search", "constant", rate, 0.1, 10_000.0)
        assert made["seconds"] == pytest.approx(seconds)


async def test_each_run_has_arrivals_of_its_own(runs: Runs) -> None:
    first, _ = await runs.run("one", "poisson", 100.0, 0.1)
    second, _ = await runs.run("two", "poisson", 100.0, 0.1)
    assert first.schedule.offsets_s.tolist() != second.schedule.offsets_s.tolist()
