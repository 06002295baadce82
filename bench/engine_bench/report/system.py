"""Charts and tables of the benches that start the whole system: load, peers, start and memory, changes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from engine_bench.report.charts import Chart, Point, Row, Section, bars, lines, ranges, timed
from engine_bench.report.read import Reports, dig, number, objects
from engine_bench.report.tables import Cell, Table, amount, count, milliseconds, ms, part, recall, text
from engine_bench.startup import OWN_MEMORY_AT_MOST_MIB, START_AT_MOST_S
from engine_bench.targets import TARGET_ITEMS, short

_PERCENTILES: Final = {"p50": "50%", "p90": "90%", "p99": "99%", "p99.9": "99.9%", "max": "all"}
# Rates are rounded to a tenth.
_SAME_PER_S: Final = 0.11

Object = Mapping[str, Any]


def system_sections(reports: Reports) -> Iterator[Section]:
    """Those for which there are figures."""
    yield from _load(reports.of("load"))
    yield from _peers(reports.of("peers"))
    yield from _startup(reports.of("startup"))
    yield from _changes(reports)
    if number(reports.of("processor"), "events_per_s") is not None:
        yield Section("processor", "Events a second", ["processor"])


def _load(report: Object) -> Iterator[Section]:
    runs = [run for run in objects(report, "runs") if number(run, "latency_ms", "p99") is not None]
    if not runs:
        return
    rates = list(objects(report, "rates"))
    charts = [*_curve(runs, rates), *_percentiles(report, runs, rates)]
    columns: dict[str, Cell] = {
        "run": lambda run: str(run.get("name", "")).rstrip(","), "asked /s": count("rate_asked"),
        "good answers /s": count("rate_reached"), "p50 ms": ms("latency_ms", "p50"), "p99 ms": ms("latency_ms", "p99"),
        "failed": lambda run: ", ".join(f"{n} {status}" for status, n in (run.get("errors") or {}).items()) or "none",
        "CPU ms each": count("server_cpu_ms_per_answer"),
        "generator in time": lambda run: "yes" if run.get("valid") else "no",
    }  # fmt: skip
    stages = [{"stage": stage, **each} for stage, each in (dig(report, "unloaded", "stages_ms") or {}).items()]
    named: dict[str, Cell] = {"stage": text("stage"), "p50 ms": ms("p50"), "p99 ms": ms("p99")}
    tables = [Table.of("All runs, in order", runs, columns), Table.of("Stages of the unloaded server", stages, named)]
    yield Section("load", "Under load", ["load"], charts, [table for table in tables if table.rows])


def _curve(runs: Sequence[Object], rates: Sequence[Object]) -> list[Chart]:
    by_rate: dict[float, list[Object]] = {}
    for run in runs:
        if asked := number(run, "rate_asked"):
            by_rate.setdefault(asked, []).append(run)
    if len(by_rate) < 2:
        return []
    drawn: dict[str, list[Point]] = {"p50": [], "p99": []}
    for asked, tried in sorted(by_rate.items()):
        # A generator that was late says little of the server: such runs count where there are no others.
        in_time = [run for run in tried if run.get("valid")]
        for name, points in drawn.items():
            median = float(np.median([number(run, "latency_ms", name) or 0.0 for run in in_time or tried]))
            points.append(Point(asked, median, "" if in_time or name == "p50" else "late"))
    steps = [digit * 10.0**power for power in range(-1, 6) for digit in (1, 2, 5)]
    caption = (
        "Each point is one rate that was tried, the median where it was tried more than once. Red: the bounds that "
        "rates were searched for. Dotted: the highest rates that held them. “late”: the generator was, in every run."
    )
    return [lines(
        "curve", "Latency by throughput", caption, {"": drawn}, "requests a second", "milliseconds", y_log=True,
        ticks={step: f"{step:g}" for step in steps if min(by_rate) * 0.8 <= step <= max(by_rate) * 1.25},
        bounds={bound: f"{bound:g} ms" for rate in rates if (bound := number(rate, "bound_ms"))},
        marks={per_s: f"{amount(per_s)}/s" for rate in rates if (per_s := number(rate, "per_s"))},
    )]  # fmt: skip


def _percentiles(report: Object, runs: Sequence[Object], rates: Sequence[Object]) -> list[Chart]:
    named: dict[str, object] = {"unloaded": dig(report, "unloaded")}
    for rate in rates:
        name, per_s = f"repeat p99 <= {amount(number(rate, 'bound_ms'))} ms", number(rate, "per_s") or 0.0
        # Where most repeats did not hold, a lower rate was repeated: those of the rate that held count.
        repeats = [
            run
            for run in runs
            if str(run.get("name")).startswith(name) and abs((number(run, "rate_asked") or 0.0) - per_s) < _SAME_PER_S
        ]
        if per_s and repeats:
            middle = sorted(repeats, key=lambda run: number(run, "latency_ms", "p99") or 0.0)[len(repeats) // 2]
            named[f"at {amount(per_s)}/s"] = middle
    drawn = {
        label: [
            Point(place, found, milliseconds(found))
            for place, name in enumerate(_PERCENTILES)
            if (found := number(run, "latency_ms", name))
        ]
        for label, run in named.items()
    }
    drawn = {label: points for label, points in drawn.items() if points}
    caption = (
        "How long the slowest of all answers take, as callers see it over gRPC: without load (25 requests a second), "
        "and at the highest rates that held their bound (the middle one of the repeats)."
    )
    return [lines(
        "percentiles", "Percentiles", caption, {"": drawn}, "of all answers, this share was faster", "milliseconds",
        x_log=False, y_log=True, ticks={float(place): name for place, name in enumerate(_PERCENTILES.values())},
    )] if drawn else []  # fmt: skip


def _peers(report: Object) -> Iterator[Section]:
    services, stages = list(objects(report, "services")), list(objects(report, "stages"))
    if services:
        yield _services(services)
    if stages:
        yield _stages(stages)


def _services(services: Sequence[Object]) -> Section:
    charts = []
    titles = "; ".join(f"“{_name(each)}”: {text('title')(each) or _name(each)}" for each in services)
    if rows := [row for each in services for row in timed(_name(each), each, "unloaded", "latency_ms")]:
        caption = f"As callers see it, one request at a time. “null” does no work: it is what gRPC takes. {titles}."
        charts.append(ranges("peers-unloaded", "Latency without load", caption, rows))
    bounds = sorted({bound for each in services for rate in objects(each, "rates") if (bound := _bound(rate))})
    for bound in bounds:
        rows = [
            Row(_name(each), per_s, text=f"{amount(per_s)}/s" if per_s else "none held")
            for each in services
            if (per_s := _per_s(each, bound)) is not None
        ]
        # Where nobody holds a bound there is nothing to see; the table says so.
        if any(row.value for row in rows):
            caption = f"The most requests a second of which 99% are answered within {bound:g} ms of when they were due."
            title = f"Requests a second within {bound:g} ms"
            charts.append(bars(f"peers-rate-{bound:g}", title, caption, rows, "requests a second"))
    columns: dict[str, Cell] = {
        "service": lambda each: text("title")(each) or _name(each),
        "p50 ms": ms("unloaded", "latency_ms", "p50"), "p99 ms": ms("unloaded", "latency_ms", "p99"),
        **{f"/s within {bound:g} ms": _rate_cell(bound) for bound in bounds},
        "CPU ms each": count("server_cpu_ms_per_answer"), "skipped": text("skipped"),
    }  # fmt: skip
    return Section("peers", "Beside other servers", ["peers"], charts, [Table.of("Services", services, columns)])


def _stages(stages: Sequence[Object]) -> Section:
    charts = []
    for stage in dict.fromkeys(str(each.get("stage")) for each in stages):
        contestants = [each for each in stages if str(each.get("stage")) == stage]
        rows = [
            Row(f"{_name(each)}\n{_quality(each)}".rstrip(), p50, number(each, "p99_ms"))
            for each in contestants
            if (p50 := number(each, "p50_ms"))
        ]
        if rows:
            titles = "; ".join(f"“{_name(each)}”: {text('title')(each) or _name(each)}" for each in contestants)
            caption = f"One call of the stage on the same input, one thread, p50 to p99. {titles}."
            charts.append(ranges(f"peers-{stage}", f"Stage {stage}", caption, rows))
    columns: dict[str, Cell] = {
        "stage": text("stage"), "what": lambda each: text("title")(each) or _name(each), "p50 ms": ms("p50_ms"),
        "p99 ms": ms("p99_ms"), "recall@1000": part("recall_at_1000"), "agreement": part("agreement"),
        "parameters, or why it was skipped": lambda each: text("skipped")(each) or ", ".join(
            f"{name} {value}" for name, value in (each.get("parameters") or {}).items()
        ),
    }  # fmt: skip
    table = Table.of("Stages", stages, columns)
    return Section("peer_stages", "Stages beside other libraries", ["peers"], charts, [table])


def _name(each: Object) -> str:
    return str(each.get("name") or each.get("title") or "?")


def _quality(each: Object) -> str:
    found = {"recall": number(each, "recall_at_1000"), "agreement": number(each, "agreement")}
    return ", ".join(f"{name} {recall(value)}" for name, value in found.items() if value is not None)


def _bound(rate: Object) -> float | None:
    return number(rate, "bound_p99_ms") or number(rate, "bound_ms")


def _per_s(service: Object, bound: float) -> float | None:
    return next((number(rate, "per_s") for rate in objects(service, "rates") if _bound(rate) == bound), None)


def _rate_cell(bound: float) -> Cell:
    return lambda service: amount(_per_s(service, bound))


def _startup(report: Object) -> Iterator[Section]:
    sizes = [size for size in objects(report, "sizes") if number(size, "items") and number(size, "start_s", "median")]
    if not sizes:
        return
    starts, memory = [], []
    for size in sizes:
        label = f"{short(int(size['items']))} items"
        median, lowest, highest = (number(size, "start_s", name) or 0.0 for name in ("median", "lowest", "highest"))
        bound = START_AT_MOST_S if size["items"] <= TARGET_ITEMS else None
        starts.append(Row(label, median, None, bound, f"{amount(median)} s ({amount(lowest)}–{amount(highest)})"))
        own, mapped = (number(dig(size, "memory", 0), name) for name in ("own_mib", "mapped_mib"))
        if own is not None:
            bound = OWN_MEMORY_AT_MOST_MIB if size["items"] <= TARGET_ITEMS else None
            memory.append(Row(label, own, None, bound, f"{own:,.0f} MiB, and {amount(mapped)} of mapped files"))
    caption = "From the start of `engine serve` until health says SERVING: median (lowest to highest) of warm starts."
    charts = [bars("startup", "Start to SERVING", caption, starts, "seconds")]
    if memory:
        caption = (
            "One serving process of two over the same bundle, after 500 requests: its private memory without pages of "
            "mapped files, which all processes of a machine share."
        )
        charts.append(bars("memory", "Memory", caption, memory, "MiB of its own"))
    replicas = [
        {"items": size["items"], "process": place, **replica}
        for size in sizes
        for place, replica in enumerate(objects(size, "memory"), start=1)
    ]
    columns: dict[str, Cell] = {
        "items": count("items"), "process": count("process"), "resident MiB": count("rss_mib"),
        "unique (USS) MiB": count("uss_mib"), "its own MiB": count("own_mib"), "mapped files MiB": count("mapped_mib"),
    }  # fmt: skip
    yield Section("startup", "Start and memory", ["startup"], charts, [Table.of("Memory", replicas, columns)])


def _changes(reports: Reports) -> Iterator[Section]:
    rows, cells, sources = [], [], []
    for label, source, prefix in (
        ("a click shows", "freshness", ""), ("a sold-out item is gone", "inventory", ""),
        ("a new item is there", "inventory", "new_item_"),
    ):  # fmt: skip
        report = reports.of(source)
        p50, p99 = number(report, f"{prefix}p50_ms"), number(report, f"{prefix}p99_ms")
        if p50 is None or p99 is None:
            continue
        targets = objects(report, "targets")
        bound = next((number(each, "bound") for each in targets if each.get("name") == f"{prefix}p99_ms"), None)
        rows.append(Row(label, p99, None, bound, f"{milliseconds(p99)} ms (p50 {milliseconds(p50)})"))
        cells.append([label, milliseconds(p50), milliseconds(p99), amount(bound)])
        sources.append(source)
    if rows:
        caption = (
            "p99 from the moment that the engine acknowledged a change until answers showed it. Kafka, stream "
            "processor, Redis and servers are real processes: one server for clicks, two under load for the catalogue."
        )
        charts = [bars("changes", "From acknowledgement to answer", caption, rows, "milliseconds, p99")]
        table = Table("Changes", ["change", "p50 ms", "p99 ms", "at most ms"], cells)
        yield Section("changes", "How soon a change shows", list(dict.fromkeys(sources)), charts, [table])
