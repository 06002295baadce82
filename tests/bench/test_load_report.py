"""Figures are those of the arrays that they are made of."""

import sys

import numpy as np
import pytest

from engine.errors import ConfigError
from engine_bench.load_driver import Record, Status, plan
from engine_bench.load_report import figures, spread, unloaded_targets
from engine_bench.targets import STAGE_TARGETS, TAIL, TAIL_NAME


def record_of(seed: int, count: int = 4_000) -> Record:
    """A run of random outcomes."""
    draw = np.random.default_rng(seed)
    record = Record.empty(plan("constant", 1_000.0, count / 1_000.0, 10, seed))
    record.status[:] = draw.choice([Status.OK, Status.DEADLINE, Status.OVERFLOW], count, p=[0.9, 0.07, 0.03])
    record.latency_ms[:] = np.where(record.ok, draw.lognormal(1.5, 0.8, count), np.inf)
    record.lateness_ms[:] = draw.exponential(0.2, count)
    record.degraded[:] = record.ok & (draw.random(count) < 0.1)
    return record


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_and_counts_against_sorting(seed: int) -> None:
    record = record_of(seed)
    run = figures(record)
    plain = np.sort(record.latency_ms[record.ok & ~record.schedule.debug])
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)):
        place = round(share * len(plain)) - 1
        # Three digits in the histogram, two decimals in the report, and a rank that may be rounded either way.
        low, high = plain[place - 1] * 0.998 - 0.011, plain[min(place + 1, len(plain) - 1)] * 1.002 + 0.011
        assert low <= run["latency_ms"][name] <= high
    assert run["latency_ms"]["max"] == pytest.approx(plain[-1], abs=0.01)
    assert run["errors"] == {
        "deadline": int((record.status == Status.DEADLINE).sum()),
        "overflow": int((record.status == Status.OVERFLOW).sum()),
    }
    assert run["degraded_share"] == pytest.approx(record.degraded.sum() / record.ok.sum(), abs=1e-4)
    assert run["valid"]


def test_the_histogram_can_be_read_again() -> None:
    from hdrh.histogram import HdrHistogram

    record = record_of(7)
    run = figures(record)
    again = HdrHistogram.decode(run["histogram"].encode())
    assert again.get_total_count() == int((record.ok & ~record.schedule.debug).sum())
    assert again.get_value_at_percentile(99) / 1000.0 == pytest.approx(run["latency_ms"]["p99"], abs=0.01)


def test_a_late_generator_makes_a_run_invalid() -> None:
    record = record_of(8)
    record.lateness_ms[::50] = 20.0
    run = figures(record)
    assert not run["valid"]
    assert run["lateness_p99_ms"] == pytest.approx(20.0)


def test_a_run_without_answers_has_no_latencies() -> None:
    run = figures(Record.empty(plan("constant", 10.0, 1.0, 1, 0)))
    assert run["latency_ms"] == {}
    assert run["rate_reached"] == run["degraded_share"] == 0.0
    assert run["errors"] == {"other": 10}


def test_stages_add_up_and_meet_their_targets_or_not() -> None:
    record = Record.empty(plan("constant", 10.0, 1.0, 1, 0))
    stages = {"features": 0.2, "blend": 0.04, "retrieve": 1.3, "rank": 1.5, "total": 9.0, **dict.fromkeys(TAIL, 0.1)}
    record.stages_ms = dict.fromkeys(range(5), stages)
    run = figures(record)
    assert run["stages_ms"]["sum"]["p50"] == pytest.approx(0.2 + 0.04 + 1.3 + 1.5 + 0.6)
    assert run["stages_ms"][TAIL_NAME]["p50"] == pytest.approx(0.6)
    run["latency_ms"] = {"p50": 5.0}
    met = {target.name: target.met for target in unloaded_targets(run, {"latency_ms": {"p50": 0.9}})}
    assert [name for name, good in met.items() if not good] == ["unloaded total p50 ms", "unloaded retrieve p50 ms"]


@pytest.mark.parametrize(("floor_ms", "share", "met"), [(0.86, 0.9, True), (0.8, 0.888, False)])
def test_floor_and_stages_account_for_what_callers_wait_for(floor_ms: float, share: float, met: bool) -> None:
    unloaded = {"latency_ms": {"p50": 5.0}, "stages_ms": {"sum": {"p50": 3.64}}}
    target = unloaded_targets(unloaded, {"latency_ms": {"p50": floor_ms}})[-1]
    assert target.measured == pytest.approx(share)
    assert target.met is met


def test_a_stage_that_never_ran_misses_its_target() -> None:
    nothing = figures(Record.empty(plan("constant", 10.0, 1.0, 1, 0)))
    targets = unloaded_targets(nothing, nothing)
    assert len(targets) == len(STAGE_TARGETS) + 1
    assert not any(target.met for target in targets)


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}
    assert spread([]) == {}


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    with pytest.raises(ConfigError, match="hdrhistogram"):
        figures(Record.empty(plan("constant", 10.0, 1.0, 1, 0)))
