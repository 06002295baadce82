"""Why a target was missed, as far as the figures beside it tell."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from engine_bench.report.numbers import amount, milliseconds
from engine_bench.report.read import Reports, number, objects
from engine_bench.targets import STAGE_TARGETS, TARGET_ITEMS

_NAIVE_P50: Final = "unloaded p50, share of naive's"
_NAIVE_RATE: Final = "rate at p99 <= 25 ms, times naive's"
_TILED: Final = "rank, times as fast as the tiled graph"
_EXPLAINED: Final = "floor and stages, share of the unloaded p50"
_STAGE_OF: Final = {name: stage for name, stage, _, _ in STAGE_TARGETS}


def why_missed(source: str, name: str, reports: Reports) -> str:
    """What the files say of a missed target; empty where they say nothing."""
    if source == "load" and name in _STAGE_OF:
        return _awake(reports, _STAGE_OF[name])
    if source == "bench" and name.startswith("search with "):
        return _fresh(reports)
    if source == "bench":
        return _alone(reports, _STAGE_OF.get(name.replace("request", "unloaded", 1), ""))
    known: Mapping[str, Callable[[Reports], str]] = {
        _NAIVE_P50: _beside_the_floor,
        _NAIVE_RATE: _rates,
        _TILED: _tiled,
        _EXPLAINED: _unexplained,
    }
    return known[name](reports) if name in known else ""


def _beside_the_floor(reports: Reports) -> str:
    engine, naive, null = (
        number(_service(reports, name), "unloaded", "latency_ms", "p50") for name in ("engine", "naive", "null")
    )
    if engine is None or naive is None or null is None or naive <= null:
        return ""
    return (
        f"Of the {milliseconds(engine)} and {milliseconds(naive)} ms, {milliseconds(null)} are what a service that "
        f"does nothing takes; without those the share is {(engine - null) / (naive - null):.2f}. Most of what is left "
        "both have as well: one index, and one network in ONNX Runtime."
    )


def _rates(reports: Reports) -> str:
    rates = []
    for name in ("engine", "naive"):
        rate = next(objects(_service(reports, name), "rates"), {})
        by = rate.get("ended_by", "the server")
        rates.append(f"{name} {amount(number(rate, 'per_s') or 0.0)} a second, ended by the {by}")
    return f"Rates that held: {'; '.join(rates)}."


def _tiled(reports: Reports) -> str:
    rows = [row for row in objects(reports.of("peers"), "stages") if row.get("stage") == "rank"]
    took = {row.get("name"): number(row, "p50_ms") for row in rows}
    engine, tiled, graph = (took.get(name) for name in ("engine", "tiled", "tiled_graph"))
    if engine is None or tiled is None or graph is None:
        return ""
    return (
        f"{milliseconds(engine)} ms, and {milliseconds(tiled)} with {milliseconds(tiled - graph)} of it for the "
        "matrix: the layers behind the first, which tiling does not make larger, are as much work either way."
    )


def _unexplained(reports: Reports) -> str:
    report = reports.of("load")
    whole, floor = (number(report, run, "latency_ms", "p50") for run in ("unloaded", "floor"))
    stages = number(report, "unloaded", "stages_ms", "sum", "p50")
    if whole is None or stages is None or floor is None:
        return ""
    return (
        f"{milliseconds(whole - stages - floor)} of {milliseconds(whole)} ms are neither in a stage nor what a service "
        "that does nothing takes: the interceptor's work is among it, and whatever takes gRPC longer here than there."
    )


def _awake(reports: Reports, stage: str) -> str:
    """A server that is asked 25 times a second against one that has no pause."""
    requests = {int(number(info, "items") or 0): info for info in _requests(reports)}
    items = int(number(reports.of("load"), "settings", "items") or 0)
    busy = number(requests.get(items), "stages_ms", stage, "p50")
    idle = number(reports.of("load"), "unloaded", "stages_ms", stage, "p50")
    if busy is None or idle is None or idle <= busy:
        return ""
    return (
        f"At p50 {milliseconds(idle)} ms, and {milliseconds(busy)} where one request follows the other (`make bench`): "
        "after 40 ms of nothing all stages take longer, arithmetic, interpreter and memory alike."
    )


def _alone(reports: Reports, stage: str) -> str:
    """A stage in a request against the same stage called again and again; the whole against its quickest round."""
    if stage == "sum":
        least = [
            value * 1000
            for bench in objects(reports.of("bench"), "benchmarks")
            if str(bench.get("name", "")).startswith("test_request[")
            and number(bench, "extra_info", "items") == TARGET_ITEMS
            and (value := number(bench, "stats", "min"))
        ]
        return f"The quickest of all took {milliseconds(least[0])} ms." if least else ""
    alone = [
        value
        for bench in objects(reports.of("bench"), "benchmarks")
        if (bench.get("extra_info") or {}).get("stage") == stage
        and number(bench, "extra_info", "items") == TARGET_ITEMS
        and number(bench, "extra_info", "k") in (None, 1000)
        and (value := number(bench, "extra_info", "p50_ms")) is not None
    ]
    if not alone:
        return ""
    return (
        f"Called again and again it takes {milliseconds(alone[0])} ms at p50: in a request every stage finds the "
        "caches as the one before it has left them."
    )


def _fresh(reports: Reports) -> str:
    for bench in objects(reports.of("bench"), "benchmarks"):
        alone, both = number(bench, "extra_info", "main_p50_ms"), number(bench, "extra_info", "both_p50_ms")
        if alone is not None and both is not None and number(bench, "extra_info", "items") == TARGET_ITEMS:
            return (
                f"{milliseconds(alone)} ms without them and {milliseconds(both)} with them: every fresh item is "
                "compared, and what that takes stays what it is when the search of all others gets faster."
            )
    return ""


def _requests(reports: Reports) -> list[dict[str, Any]]:
    return [
        bench.get("extra_info") or {}
        for bench in objects(reports.of("bench"), "benchmarks")
        if str(bench.get("name", "")).startswith("test_request[")
    ]


def _service(reports: Reports, name: str) -> dict[str, Any]:
    return next((row for row in objects(reports.of("peers"), "services") if row.get("name") == name), {})
