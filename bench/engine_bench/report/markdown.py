"""The figures that a README shows, as Markdown tables."""

from collections.abc import Iterator

from engine_bench.report.gpu import gpu_tables
from engine_bench.report.read import Reports, number, objects, provenance
from engine_bench.report.suite import parts_table, requests
from engine_bench.report.tables import Cell, Table, amount, count, ms, recall, text
from engine_bench.report.targets import judged


def markdown(reports: Reports) -> str:
    """Tables of parts by catalogue size, of rates, of a GPU, and of targets, with what they were measured on."""
    return "\n\n".join(block for title, table in _tables(reports) for block in (title, table.markdown())) + (
        f"\n\nMeasured on {'; '.join(_machines(reports))}.\n"
    )


def _tables(reports: Reports) -> Iterator[tuple[str, Table]]:
    for items, request in requests(reports.of("bench")).items():
        found = recall(number(request, "recall_at_1000"))
        yield f"{items:,} items, recall@1000 {found} (`make bench`):", parts_table(request, "")
    load, gpu = reports.of("load"), reports.of("gpu")
    columns: dict[str, Cell] = {
        "p99 within ms": count("bound_ms"), "requests/s": count("per_s"), "p50 ms": ms("p50_ms", "median"),
        "p99 ms": ms("p99_ms", "median"), "limit of the": text("ended_by"),
    }  # fmt: skip
    if rates := list(objects(load, "rates")):
        size = amount(number(load, "settings", "items"))
        title = f"One server under load, {size} items, as callers see it (`make bench-load`):"
        yield title, Table.of("", rates, columns)
    where = "rehearsed on the processor, not on a GPU" if gpu.get("rehearsal") else f"on {gpu.get('device', 'a GPU')}"
    for table in gpu_tables(gpu):
        yield f"{table.title}, {where} (`make bench-gpu`):", table
    if rows := [
        [each.title, f"{each.relation} {amount(each.target.bound)}", amount(each.target.measured), each.outcome]
        for each in judged(reports)
        if not (each.source == "gpu" and gpu.get("rehearsal"))
    ]:
        yield "Targets:", Table("", ["target", "bound", "measured", ""], rows)


def _machines(reports: Reports) -> list[str]:
    known = {provenance(report) for report in reports.found.values()}
    return sorted({f"{each.machine} (commit {each.commit}, {each.date} UTC)" for each in known})
