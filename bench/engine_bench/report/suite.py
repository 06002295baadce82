"""Charts and tables of `make bench`: requests, growth with the catalogue, search, stages and kernels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from engine.stages import BUDGETS_MS, STAGES
from engine_bench.report.charts import Point, Row, Section, bars, lines, ranges, series, timed
from engine_bench.report.read import dig, number, objects
from engine_bench.report.tables import Cell, Table, amount, count, milliseconds, ms, part, recall, text
from engine_bench.targets import short, target_size

PART_LABELS: Final = {
    "features": "features: one read of Redis", "retrieve": "eligibility, blend, retrieve 1000", "rank": "rank 1000",
    "respond": "filter, rules, diversity, respond",
}  # fmt: skip

Object = Mapping[str, Any]


def benchmarks(report: Object) -> list[dict[str, Any]]:
    """The `extra_info` of each benchmark of `make bench` with `test`, `param`, `params`, and `p50_ms` in any case."""
    found = []
    for each in objects(report, "benchmarks"):
        info = each.get("extra_info") or {}
        seconds = number(each, "stats", "median")
        p50 = number(info, "p50_ms") or (None if seconds is None else seconds * 1000)
        if p50 is not None:
            names = {"test": str(each.get("name")).partition("[")[0], "param": str(each.get("param"))}
            found.append({**info, **names, "params": each.get("params"), "p50_ms": p50})
    return found


def requests(report: Object) -> dict[int, dict[str, Any]]:
    """What was measured of whole requests, by catalogue size."""
    found = {int(number(each, "items") or 0): each for each in benchmarks(report) if each["test"] == "test_request"}
    return {items: found[items] for items in sorted(found) if items}


def parts_table(request: Object, title: str) -> Table:
    """The parts of a request and the whole, against their budgets."""
    rows = [(label, request.get("parts_ms"), part, BUDGETS_MS[part]) for part, label in PART_LABELS.items()]
    whole = {"p50": number(request, "p50_ms"), "p99": number(request, "p99_ms")}
    rows.append(("whole request on the server, without gRPC", {"whole": whole}, "whole", 100.0))
    cells = [
        [label, milliseconds(number(found, key, "p50")), milliseconds(number(found, key, "p99")), f"{budget:g}"]
        for label, found, key, budget in rows
    ]
    return Table(title, ["part", "p50 ms", "p99 ms", "budget ms"], cells)


def suite_sections(report: Object) -> Iterator[Section]:
    """Those for which there are figures."""
    by_items = requests(report)
    if by_items:
        items = target_size(by_items)
        yield _request(items, by_items)
        yield _growth(by_items)
    alone = [each for each in benchmarks(report) if each.get("stage")]
    searches = [
        each
        for each in benchmarks(report)
        if each["test"] != "test_request"
        and not each.get("stage")
        and number(each, "recall_at_k")
        and each.get("items")
    ]
    if searches:
        yield _search(searches)
    if alone:
        columns: dict[str, Cell] = {
            "stage": lambda each: " ".join(filter(None, [each["stage"], _detail(each)])),
            "p50 ms": ms("p50_ms"), "p99 ms": ms("p99_ms"), "recall@k": part("recall_at_k"),
        }  # fmt: skip
        sizes = {int(number(each, "items") or 0) for each in alone}
        yield Section("alone", "Each stage alone", ["bench"], tables=[
            Table.of(f"With {size:,} items", [each for each in alone if number(each, "items") == size], columns)
            for size in sorted(sizes, key=lambda size: (size != target_size(sizes), size))
        ])  # fmt: skip
    yield from _kernels(benchmarks(report))


def _detail(each: Object) -> str:
    k = number(each, "k")
    return str(each.get("diversifier") or (f"k = {k:.0f}" if k else ""))


def _request(items: int, by_items: Mapping[int, Object]) -> Section:
    request = by_items[items]
    found = f"Catalogue of {items:,} items; recall@1000 of the search {recall(number(request, 'recall_at_1000'))}."
    parts = [
        row
        for name, label in PART_LABELS.items()
        for row in timed(label, request, "parts_ms", name, bound=BUDGETS_MS[name])
    ]
    stages = [
        row for each in STAGES if each.name != "total" for row in timed(each.name, request, "stages_ms", each.name)
    ]
    charts = []
    if parts:
        caption = f"{found} Measured in one process over a real Redis, one request after the other, without gRPC."
        charts.append(ranges("budget", "Every part against its budget", caption, parts))
    if stages:
        caption = f"{found} The same requests by stage, in their order. “queue” is the wait for a thread."
        charts.append(ranges("stages", "Where one request's time goes", caption, stages))
    tables = [parts_table(each, f"With {size:,} items") for size, each in by_items.items()]
    return Section("request", "One request", ["bench"], charts, tables)


def _growth(by_items: Mapping[int, Object]) -> Section:
    columns: dict[str, Cell] = {
        "items": lambda each: f"{each['items']:,}", "request p50 ms": ms("p50_ms"), "request p99 ms": ms("p99_ms"),
        "retrieve p50 ms": ms("stages_ms", "retrieve", "p50"), "rank p50 ms": ms("stages_ms", "rank", "p50"),
        "recall@1000": part("recall_at_1000"),
    }  # fmt: skip
    table = Table.of("A request by catalogue size", by_items.values(), columns)
    if len(by_items) < 2:
        return Section("growth", "Growth with the catalogue", ["bench"], tables=[table])
    paths = {
        "request p50": ["p50_ms"], "request p99": ["p99_ms"], "rank p50": ["stages_ms", "rank", "p50"],
        "retrieve p50": ["stages_ms", "retrieve", "p50"],
    }  # fmt: skip
    drawn = {
        name: [Point(items, number(each, *path) or 0.0) for items, each in by_items.items()]
        for name, path in paths.items()
    }
    caption = "The whole request and its two largest stages, on the same machine with the same users."
    ticks = {float(items): short(items) for items in by_items}
    chart = lines(
        "growth", "Time by catalogue size", caption, {"": drawn}, "items in the catalogue", "milliseconds", ticks=ticks
    )  # fmt: skip
    return Section("growth", "Growth with the catalogue", ["bench"], [chart], [table])


def _search(searches: Sequence[Object]) -> Section:
    charts = []
    found = [{**each, "size": f"{short(each['items'])} items", "kind": _catalogue(each)} for each in searches]
    depths = [each for each in found if each["test"] == "test_retrieve_depth" and number(each, "dim")]
    if depths:
        depths.sort(key=lambda each: (each["dim"], each["items"]))
        caption = (
            "Median time of one search on one core, with 95% of the items eligible. The number at a point is its "
            "recall@k against an exact search. The index is calibrated for the top 1000."
        )
        panels = series(depths, "k", "p50_ms", "size", lambda each: f"vectors of {each['dim']}", "recall_at_k")
        title = "By depth and vector length"
        charts.append(lines("depth", title, caption, panels, "items returned (k)", "p50, milliseconds"))
    # Shares between 0.9 and 1 would lie upon the point of 1.
    shares = [
        each
        for each in found
        if each["test"] == "test_retrieve" and _rescored(each) and (share := number(each, "eligible_share"))
        if not 0.9 < share < 1
    ]
    if shares:
        items = max(each["items"] for each in shares)
        caption = (
            f"Median time of a search for 1000 among {items:,} items when some of them may be shown. The number at a "
            "point is recall against an exact search among those. “clustered” is the harder catalogue."
        )
        largest = [each for each in shares if each["items"] == items]
        panels = series(largest, "eligible_share", "p50_ms", "kind", text="recall_at_k")
        title, x = "By the share of eligible items", "share of eligible items"
        charts.append(lines("eligible", title, caption, panels, x, "p50, milliseconds"))
    columns: dict[str, Cell] = {
        "catalogue": lambda each: f"{short(each['items'])} × {each.get('dim') or '–'}, {_catalogue(each)}",
        "index": text("index"), "k": count("k"), "eligible": part("eligible_share"),
        "exact below 2%": lambda each: "yes" if _rescored(each) else "no",
        "p50 ms": ms("p50_ms"), "p99 ms": ms("p99_ms"), "recall@k": part("recall_at_k"),
    }  # fmt: skip
    table = Table.of("All searches", searches, columns)
    return Section("search", "Retrieval and its recall", ["bench"], charts, [table])


def _catalogue(each: Object) -> str:
    return "clustered" if "clustered" in each["param"] else "synthetic"


def _rescored(each: Object) -> bool:
    return "index-only" not in each["param"]


def _kernels(found: Sequence[Object]) -> Iterator[Section]:
    took: dict[str, dict[str, float]] = {}
    for each in found:
        if each["test"] == "test_kernel":
            name, by = str(dig(each, "params", "name")), str(dig(each, "params", "implementation"))
            took.setdefault(name, {"name": name})[by] = each["p50_ms"] * 1000  # type: ignore[dict-item]
    kernels = [each for each in took.values() if "kernel" in each]
    if not kernels:
        return
    compared = [(each, each["numpy"] / each["kernel"]) for each in kernels if each.get("numpy")]
    rows = [
        Row(str(each["name"]), times, text=f"{times:.1f}× · {amount(each['kernel'])} µs")
        for each, times in sorted(compared, key=lambda pair: -pair[1])
    ]
    caption = (
        "Compiled kernels beside NumPy code that does the same, at the size of a request (1000 candidates, a slate of "
        "50). After each bar the kernel's own median. Both results are compared before either is timed."
    )
    unit = "times as fast as NumPy"
    charts = [bars("kernels", "Kernels beside NumPy", caption, rows, unit, times=True)] if rows else []
    columns: dict[str, Cell] = {
        "kernel": text("name"), "median µs": count("kernel"), "NumPy µs": count("numpy"),
        "times as fast": lambda each: f"{each['numpy'] / each['kernel']:.1f}" if each.get("numpy") else "–",
    }  # fmt: skip
    yield Section("kernels", "Kernels", ["bench"], charts, [Table.of("Kernels", kernels, columns)])
