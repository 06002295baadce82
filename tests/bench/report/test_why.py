"""A missed target says why, where the figures beside it do."""

from typing import Any

import pytest

from engine_bench.report.goals import goals
from engine_bench.report.markdown import markdown
from engine_bench.report.page import all_sections, render
from engine_bench.report.read import Reports
from tests.bench.report import files


def service(name: str, p50_ms: float, per_s: float) -> dict[str, Any]:
    rates = [{"bound_ms": 25.0, "per_s": per_s, "ended_by": "server"}]
    return {"name": name, "unloaded": {"latency_ms": {"p50": p50_ms}}, "rates": rates}


def stage(name: str, p50_ms: float) -> dict[str, Any]:
    return {"stage": "rank", "name": name, "p50_ms": p50_ms}


PEERS = {
    "services": [service("engine", 6.0, 100.0), service("naive", 10.0, 0.0), service("null", 2.0, 3200.0)],
    "stages": [stage("engine", 1.0), stage("tiled", 2.25), stage("tiled_graph", 2.0)],
}
LOAD = {
    "settings": {"items": 1_000_000},
    "floor": {"latency_ms": {"p50": 1.5}},
    "unloaded": {
        "latency_ms": {"p50": 6.0},
        "stages_ms": {"sum": {"p50": 3.5}, "rank": {"p50": 1.7}, "blend": {"p50": 0.08}},
    },
}
BENCH = {
    "benchmarks": [
        files.request(1_000_000, 3.0) | {"stats": {"min": 0.0021}},
        files.bench("test_fresh[1M]", 0.26, items=1_000_000, main_p50_ms=0.19, both_p50_ms=0.26),
        files.bench("test_rank[1M-200]", 0.3, items=1_000_000, stage="rank", k=200),
        files.bench("test_rank[1M-1000]", 0.9, items=1_000_000, stage="rank", k=1000),
        files.bench("test_rank[100k-1000]", 0.8, items=100_000, stage="rank", k=1000),
    ]
}


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("peers", "unloaded p50, share of naive's", "2.00 are what a service that does nothing takes; without those "
         "the share is 0.50."),
        ("peers", "rate at p99 <= 25 ms, times naive's", "engine 100 a second, ended by the server; naive 0 a second"),
        ("peers", "rank, times as fast as the tiled graph", "1.00 ms, and 2.25 with 0.25 of it for the matrix"),
        ("load", "floor and stages, share of the unloaded p50", "1.00 of 6.00 ms are neither in a stage"),
        ("load", "unloaded rank p50 ms", "At p50 1.70 ms, and 1.20 where one request follows the other"),
        ("bench", "request rank p50 ms", "Called again and again it takes 0.90 ms"),
        ("bench", "request total p50 ms", "The quickest of all took 2.10 ms."),
        ("bench", "search with 10,000 fresh items, times as long", "0.19 ms without them and 0.26 with them"),
    ],
)  # fmt: skip
def test_what_was_missed_says_why(source: str, name: str, words: str) -> None:
    found = {"peers": dict(PEERS), "load": dict(LOAD), "bench": dict(BENCH)}
    found[source]["targets"] = [files.target(name, 5.0, 1.0, False)]
    reports = Reports(found, {})
    (goal,) = goals(reports)
    assert words in goal.why
    assert f"- {goal.title}: {goal.why}" in markdown(reports)


def test_the_page_shows_it() -> None:
    reports = Reports(
        {"peers": PEERS | {"targets": [files.target("unloaded p50, share of naive's", 0.6, 0.5, False)]}}, {}
    )
    page = render(reports, all_sections(reports))
    assert '<p class="why">Of the 6.00 and 10.0 ms' in page


@pytest.mark.parametrize("source", ["bench", "load", "peers", "startup"])
@pytest.mark.parametrize(
    "name",
    [
        "unloaded p50, share of naive's", "rank, times as fast as the tiled graph", "unloaded rank p50 ms", "x",
        "floor and stages, share of the unloaded p50", "request rank p50 ms", "request total p50 ms",
    ],
)  # fmt: skip
def test_without_figures_there_is_nothing_to_say(source: str, name: str) -> None:
    (goal,) = goals(Reports({source: {"targets": [files.target(name, 5.0, 1.0, False)]}}, {}))
    assert goal.why == ""


def test_what_was_met_or_not_measured_needs_no_reason() -> None:
    name = "unloaded p50, share of naive's"
    met, unmeasured = files.target(name, 0.4, 0.5, True), files.target(name, None, 0.5, False)
    assert [goal.why for goal in goals(Reports({"peers": PEERS | {"targets": [met, unmeasured]}}, {}))] == ["", ""]
