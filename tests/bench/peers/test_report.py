"""What is owed, from what was measured."""

from typing import Any

from engine_bench.peers.report import targets


def service(name: str, p50: float, per_s: float) -> dict[str, Any]:
    rates = [{"bound_p99_ms": 25.0, "per_s": per_s}]
    return {"name": name, "unloaded": {"latency_ms": {"p50": p50}}, "rates": rates}


def stage(stage: str, name: str, p50: float, **more: Any) -> dict[str, Any]:
    return {"stage": stage, "name": name, "p50_ms": p50, **more}


RANK = [stage("rank", "engine", 1.0), stage("rank", "tiled", 2.0, parameters={"largest_difference": 1e-6})]


def test_each_target_from_its_figures() -> None:
    services = [service("engine", 4.0, 300.0), service("naive", 10.0, 100.0)]
    retrieve = [
        stage("retrieve", "engine", 0.9),
        stage("retrieve", "scann", 1.0, equal_recall=True),
        stage("retrieve", "another", 0.1, equal_recall=False),
        {"stage": "retrieve", "name": "a third", "skipped": "not installed"},
    ]
    owed = targets(services, RANK + retrieve)
    assert [target.measured for target in owed] == [3.0, 0.4, 2.0, 1e-6, 0.9]
    assert [target.met for target in owed] == [True, True, False, True, True]
    assert [target.direction == "at least" for target in owed] == [True, False, True, False, False]


def test_what_cannot_be_told_is_not_met() -> None:
    services = [service("engine", 4.0, 300.0), {"name": "naive", "skipped": "left out by --skip"}]
    owed = targets(services, [*RANK, stage("retrieve", "engine", 0.9)])
    assert [target.measured for target in owed] == [None, None, 2.0, 1e-6, None]
    assert [target.met for target in owed] == [False, False, False, True, False]


def test_nothing_is_a_multiple_of_a_rate_of_zero() -> None:
    owed = targets([service("engine", 4.0, 300.0), service("naive", 10.0, 0.0)], RANK)
    assert owed[0].measured is None
    assert not owed[0].met
