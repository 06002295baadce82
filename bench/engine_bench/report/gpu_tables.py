"""The figures of `engine bench gpu` as tables, for the page and for a README."""

from collections.abc import Mapping, Sequence

from engine_bench.report.gpu import FLOOR, GpuRun, GpuSearch, Throughput, Timing
from engine_bench.report.numbers import amount, milliseconds, recall
from engine_bench.report.section import Table


def gpu_tables(run: GpuRun) -> list[Table]:
    """Those that have a row."""
    tables = [_searches(run), _filtered(run), _ranking(run), _request(run), _loaded(run), _front_ends(run)]
    return [table for table in tables if table.rows]


def _searches(run: GpuRun) -> Table:
    batches = sorted({each.batch for search in run.searches for each in search.all_eligible})
    rows = []
    for size in run.sizes:
        found = [each for each in _ordered(run) if (each.items, each.dim) == size]
        rows += [
            [each.vectors, each.kind, recall(each.recall), *_cells(batches, {at.batch: at for at in each.all_eligible})]
            for each in found
            if each.all_eligible
        ]
        floors = {at.batch: at.floor_ms for each in found for at in each.all_eligible if at.floor_ms is not None}
        if floors:
            cells = [milliseconds(floors.get(batch)) for batch in batches]
            rows.append([found[0].vectors, FLOOR, "", *cells])
    columns = ["vectors", "kind", "recall@1000", *(f"{batch} a call" for batch in batches)]
    return Table("Search by requests in one call, p50 – p99 in ms", columns, rows)


def _filtered(run: GpuRun) -> Table:
    shares = sorted({each.share for search in run.searches for each in search.filtered}, reverse=True)
    rows = [
        [search.vectors, search.kind, str(batch), *_cells(shares, {at.share: at for at in search.filtered_by(batch)})]
        for search in _ordered(run)
        for batch in sorted({each.batch for each in search.filtered})
    ]
    columns = ["vectors", "kind", "requests a call", *(f"{share:.0%} eligible" for share in shares)]
    return Table("Search by share of eligible items, p50 – p99 in ms", columns, rows)


def _ranking(run: GpuRun) -> Table:
    rows = [
        [str(each.batch), milliseconds(each.p50_ms), milliseconds(each.p99_ms), milliseconds(each.p50_ms / each.batch)]
        for each in run.ranking
    ]
    columns = ["requests a call", "p50 ms", "p99 ms", "p50 ms for each request"]
    return Table("Ranking by requests in one call", columns, rows)


def _request(run: GpuRun) -> Table:
    whole = [] if run.alone is None else [run.alone]
    rows = [[each.name, milliseconds(each.p50_ms), milliseconds(each.p99_ms)] for each in (*run.stages, *whole)]
    return Table("Whole requests, one at a time", ["stage", "p50 ms", "p99 ms"], rows)


def _loaded(run: GpuRun) -> Table:
    columns = ["callers", "requests/s", "p50 ms", "p99 ms"]
    return Table("Requests a second of one process by callers", columns, [_rate(each) for each in run.loaded])


def _front_ends(run: GpuRun) -> Table:
    rows = [
        [str(each.front_ends), *_rate(each), amount(each.device_cores), amount(each.front_end_cores)]
        for each in run.front_ends
    ]
    columns = [
        "front ends",
        "callers",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "cores, device process",
        "cores, all front ends",
    ]
    return Table("Requests a second by front ends before one device process", columns, rows)


def _ordered(run: GpuRun) -> list[GpuSearch]:
    return sorted(run.searches, key=lambda each: (each.items, each.dim, run.kinds.index(each.kind)))


def _cells(places: Sequence[float], found: Mapping[float, Timing]) -> list[str]:
    """One for each place, in its order."""
    return [
        f"{milliseconds(found[place].p50_ms)} – {milliseconds(found[place].p99_ms)}" if place in found else "–"
        for place in places
    ]


def _rate(each: Throughput) -> list[str]:
    return [str(each.callers), amount(each.per_s), milliseconds(each.p50_ms), milliseconds(each.p99_ms)]
