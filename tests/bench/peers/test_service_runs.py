"""Services take turns, and several runs count as one."""

from collections.abc import Sequence

import numpy as np
import pytest

from engine_bench import load_runs
from engine_bench.load_driver import Answer, Ask, Record, Schedule, Status, plan
from engine_bench.load_runs import Runs
from engine_bench.peers import service_runs
from engine_bench.peers.service_runs import joined


class Limited:
    """Answers at once up to a rate, refuses everything past it, and notes who was asked when."""

    def __init__(self, name: str, capacity: float, asked: list[str]) -> None:
        self.name, self.capacity, self.asked = name, capacity, asked

    def asked_by(self, schedule: Schedule, user_ids: Sequence[str]) -> Ask:
        self.asked.append(self.name)
        status = Status.OK if schedule.rate <= self.capacity else Status.EXHAUSTED

        async def ask(_: int) -> Answer:
            return Answer(status)

        return ask


async def test_searches_take_turns_and_find_each_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_runs, "_FEWEST_REQUESTS", 1)
    # The machine that tests run on may be late, and too late for the bound of the bench.
    monkeypatch.setattr(service_runs, "RATE_BOUND_MS", 10_000.0)
    asked: list[str] = []
    runs = {
        name: Runs(Limited(name, capacity, asked), ["u"], 0, lambda done, total, message: None, explained=False)
        for name, capacity in (("quick", 300.0), ("slow", 60.0))
    }
    rates = await service_runs._rates(runs, "poisson", 0.05, 1, 1000.0)
    assert asked[:8] == ["quick", "slow"] * 4
    for name, capacity in (("quick", 300.0), ("slow", 60.0)):
        (rate,) = rates[name]
        assert rate["bound_p99_ms"] == 10_000.0
        assert rate["per_s"] <= capacity <= rate["per_s"] * 1.06


def test_joined_runs_are_one_after_the_other() -> None:
    records = [Record.empty(plan("constant", 10.0, 1.0, 3, seed, debug_every=0)) for seed in range(3)]
    for place, record in enumerate(records):
        record.status[:] = Status.OK
        record.latency_ms[:] = place + 1.0
    one = joined(records)
    assert len(one.schedule) == 30
    assert one.schedule.seconds == 3.0
    np.testing.assert_allclose(one.schedule.offsets_s, np.arange(30) / 10.0)
    assert np.percentile(one.latency_ms, 50) == 2.0
    assert one.answered_per_s() == pytest.approx(10.0)
    assert not one.schedule.debug.any()
