"""What the peers bench says: other servers that do the same work, and other libraries in place of a stage."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from engine_bench.report.charts import Bar, Span, bars, rows_height, spans
from engine_bench.report.drawing import draw
from engine_bench.report.numbers import amount, milliseconds, recall
from engine_bench.report.read import number, objects
from engine_bench.report.section import Figure, Section, Table

# What stands beside a stage's time, where the file has it.
_QUALITIES = {"recall_at_1000": "recall@1000", "agreement": "agreement"}


def peer_sections(report: dict[str, Any]) -> list[Section]:
    """Servers and stages, each where there is something of it."""
    services, stages = list(objects(report, "services")), list(objects(report, "stages"))
    sections = []
    if services:
        sections.append(_services(report, services))
    if stages:
        sections.append(_stages(stages))
    return sections


def _services(report: dict[str, Any], services: Sequence[dict[str, Any]]) -> Section:
    unloaded = [
        Span(_name(each), p50, number(each, "unloaded", "latency_ms", "p99"))
        for each in services
        if (p50 := number(each, "unloaded", "latency_ms", "p50")) is not None
    ]
    figures = []
    if unloaded:
        picture = draw(
            "peers-unloaded",
            "Latency without load: " + "; ".join(f"{row.label} p50 {milliseconds(row.p50)} ms" for row in unloaded),
            lambda figure, narrow: spans(figure, narrow, unloaded),
            rows_height(len(unloaded)),
        )
        caption = (
            "As callers see it, one request at a time, p50 to p99. All services do the same work over the same "
            "catalogue on the same machine, except “null”, which does none: no server here can be faster than that. "
            + "; ".join(f"“{_name(each)}”: {_title(each)}" for each in services)
            + "."
        )
        figures.append(Figure("peers-unloaded", "Latency without load", picture, caption))
    bounds = sorted({bound for each in services for rate in objects(each, "rates") if (bound := _bound(rate))})
    for bound in bounds:
        rows = [
            Bar(_name(each), per_s, f"{amount(per_s)}/s" if per_s else "none held", pale=each.get("name") != "engine")
            for each in services
            if (per_s := _per_s(each, bound)) is not None
        ]
        # Where nobody holds a bound there is nothing to see; the table says so.
        if not any(row.value for row in rows):
            continue
        picture = draw(
            f"peers-rate-{bound:g}",
            "Highest rate: " + "; ".join(f"{row.label} {row.text}" for row in rows),
            partial(bars, rows=rows, unit="requests a second"),
            rows_height(len(rows), legend=False),
        )
        caption = (
            f"The most requests a second of which 99% are answered within {bound:g} ms of when they were due, found "
            "by search and repeated. Longer is better."
        )
        figures.append(Figure(f"peers-rate-{bound:g}", f"Requests a second within {bound:g} ms", picture, caption))
    rows_of_table = [
        [
            _title(each),
            milliseconds(number(each, "unloaded", "latency_ms", "p50")),
            milliseconds(number(each, "unloaded", "latency_ms", "p99")),
            *(amount(_per_s(each, bound)) for bound in bounds),
            amount(number(each, "server_cpu_ms_per_answer")),
            str(each.get("skipped") or ""),
        ]
        for each in services
    ]
    columns = [
        "service",
        "p50 ms",
        "p99 ms",
        *(f"/s within {bound:g} ms" for bound in bounds),
        "CPU ms each",
        "skipped",
    ]
    items = number(report, "items")
    size = f" over {items:,.0f} items" if items else ""
    return Section(
        "peers",
        "Beside other servers",
        "peers",
        [f"The same request{size}, answered by this engine and by other ways to build such a service."],
        figures,
        [Table("Services", columns, rows_of_table)],
    )


def _stages(stages: Sequence[dict[str, Any]]) -> Section:
    figures = []
    for stage in dict.fromkeys(str(each.get("stage")) for each in stages):
        rows = [
            Span(_name(each), p50, number(each, "p99_ms"), note=_quality(each))
            for each in stages
            if each.get("stage") == stage and (p50 := number(each, "p50_ms")) is not None
        ]
        if not rows:
            continue
        picture = draw(
            f"peers-{stage}",
            f"Time of {stage}: " + "; ".join(f"{row.label} p50 {milliseconds(row.p50)} ms {row.note}" for row in rows),
            partial(spans, rows=rows),
            rows_height(len(rows)) + 0.12 * len(rows),
        )
        caption = (
            f"One call of the stage “{stage}” on the same input, one thread, p50 to p99. Below a name: how much of the "
            "exact answer it finds (recall), or how far it agrees with the reference. "
            + "; ".join(f"“{_name(each)}”: {_title(each)}" for each in stages if each.get("stage") == stage)
            + "."
        )
        figures.append(Figure(f"peers-{stage}", stage, picture, caption))
    rows_of_table = [
        [
            str(each.get("stage")),
            _title(each),
            milliseconds(number(each, "p50_ms")),
            milliseconds(number(each, "p99_ms")),
            recall(number(each, "recall_at_1000")),
            recall(number(each, "agreement")),
            str(each.get("skipped") or _parameters(each.get("parameters"))),
        ]
        for each in stages
    ]
    columns = ["stage", "what", "p50 ms", "p99 ms", "recall@1000", "agreement", "parameters, or why it was skipped"]
    return Section(
        "peer-stages",
        "Stages beside other libraries",
        "peers",
        ["What each stage would take with another library in its place; a faster one that finds less is no better."],
        figures,
        [Table("Stages", columns, rows_of_table)],
    )


def _title(each: dict[str, Any]) -> str:
    return str(each.get("title") or each.get("name") or "?")


def _name(each: dict[str, Any]) -> str:
    return str(each.get("name") or each.get("title") or "?")


def _quality(each: dict[str, Any]) -> str:
    return ", ".join(
        f"{title} {recall(value)}" for name, title in _QUALITIES.items() if (value := number(each, name)) is not None
    )


def _parameters(parameters: Any) -> str:
    if isinstance(parameters, dict):
        return ", ".join(f"{name} {value}" for name, value in parameters.items())
    return str(parameters or "")


def _bound(rate: dict[str, Any]) -> float | None:
    return number(rate, "bound_p99_ms") or number(rate, "bound_ms")


def _per_s(service: dict[str, Any], bound: float) -> float | None:
    return next((number(rate, "per_s") for rate in objects(service, "rates") if _bound(rate) == bound), None)
