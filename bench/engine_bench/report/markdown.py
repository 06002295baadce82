"""The figures that a README shows, as Markdown tables."""

from collections.abc import Iterator, Sequence

from engine.stages import BUDGETS_MS
from engine_bench.report.goals import goals
from engine_bench.report.gpu import read_gpu
from engine_bench.report.gpu_tables import gpu_tables
from engine_bench.report.numbers import amount, milliseconds, recall
from engine_bench.report.read import Reports, number, objects, provenance
from engine_bench.report.suite import PARTS, read_suite

_PARTS = {
    "features": "features: one read of Redis",
    "retrieve": "eligibility, blend, retrieve 1000",
    "rank": "rank 1000",
    "respond": "filter, rules, diversity, respond",
}


def markdown(reports: Reports) -> str:
    """Tables of parts by catalogue size, of rates, of a GPU, and of targets, with what they were measured on."""
    blocks = [*_request(reports), *_rates(reports), *_gpu(reports), *_targets(reports), *_origins(reports)]
    return "\n\n".join(blocks) + "\n"


def _request(reports: Reports) -> Iterator[str]:
    suite = read_suite(reports.of("bench"))
    for items, request in suite.requests.items():
        rows = [
            [
                _PARTS[part],
                *(milliseconds(number(request, "parts_ms", part, name)) for name in ("p50", "p99")),
                f"{BUDGETS_MS[part]:g}",
            ]
            for part in PARTS
        ]
        total = [milliseconds(number(request, "p50_ms")), milliseconds(number(request, "p99_ms")), "100"]
        rows.append(["whole request on the server, without gRPC", *total])
        yield f"{items:,} items, recall@1000 {recall(number(request, 'recall_at_1000'))} (`make bench`):"
        yield _table(["part", "p50 ms", "p99 ms", "budget ms"], rows)


def _rates(reports: Reports) -> Iterator[str]:
    report = reports.of("load")
    rows = [
        [
            f"{amount(number(rate, 'bound_ms'))}",
            amount(number(rate, "per_s")),
            milliseconds(number(rate, "p50_ms", "median")),
            milliseconds(number(rate, "p99_ms", "median")),
            str(rate.get("ended_by", "–")),
        ]
        for rate in objects(report, "rates")
    ]
    if rows:
        items = number(report, "settings", "items")
        yield f"One server under load, {amount(items)} items, as callers see it (`make bench-load`):"
        yield _table(["p99 within ms", "requests/s", "p50 ms", "p99 ms", "limit of the"], rows)


def _gpu(reports: Reports) -> Iterator[str]:
    run = read_gpu(reports.of("gpu"))
    where = "rehearsed on the processor, not on a GPU" if run.rehearsal else f"on {run.device}"
    for table in gpu_tables(run):
        yield f"{table.title}, {where} (`make bench-gpu`):"
        yield _table(table.columns, table.rows)


def _targets(reports: Reports) -> Iterator[str]:
    rows = [
        [goal.title, f"{goal.relation} {amount(goal.bound)}", amount(goal.value), goal.outcome]
        for goal in goals(reports)
    ]
    if rows:
        yield _table(["target", "bound", "measured", ""], rows)
    if why := [f"- {goal.title}: {goal.why}" for goal in goals(reports) if goal.why]:
        yield "\n".join(["Of those that were missed:", "", *why])


def _origins(reports: Reports) -> Iterator[str]:
    known = {provenance(report) for report in reports.found.values()}
    machines = sorted({f"{each.machine} (commit {each.commit}, {each.date} UTC)" for each in known})
    yield "Measured on " + "; ".join(machines) + "."


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    # A bar inside a cell would be the end of the cell.
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
