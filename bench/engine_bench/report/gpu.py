"""Charts and tables of `engine bench gpu`; of a run that ended early, of whatever is there."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from engine_bench.report.charts import Chart, Row, Section, bars, lines, ranges, series
from engine_bench.report.read import dig, number, objects
from engine_bench.report.tables import Cell, Table, amount, count, milliseconds, ms, recall, text
from engine_bench.targets import short

FLOOR: Final = "the device's floor"

Object = Mapping[str, Any]
Objects = list[dict[str, Any]]


def gpu_sections(report: Object) -> list[Section]:
    """One, where anything was measured; a rehearsal says in its title and in every chart that it is one."""
    tables = gpu_tables(report)
    if not tables and number(report, "floors", "bytes_per_s") is None:
        return []
    # A chart can leave the page: it says by itself that it is not a GPU's.
    rehearsal = "\n(rehearsed on the processor, not on a GPU)" if report.get("rehearsal") else ""
    bound = None if rehearsal else number(report, "targets", "requests_per_s", "target")
    charts = [
        *_search_charts(_searches(report), rehearsal), *_request_charts(_ranked(report), _stages(report), rehearsal),
        *_throughput_charts(report, bound, rehearsal),
    ]  # fmt: skip
    title = "On a GPU: a rehearsal on the processor" if rehearsal else "On a GPU"
    return [Section("gpu", title, ["gpu"], charts, tables)]


_TIMES: Final[dict[str, Cell]] = {"p50 ms": ms("p50_ms"), "p99 ms": ms("p99_ms")}
_RATE: Final[dict[str, Cell]] = {"callers": count("callers"), "requests/s": count("requests_per_s"), **_TIMES}
_FRONT_ENDS: Final[dict[str, Cell]] = {
    "front ends": count("front_ends"), **_RATE, "cores, device process": count("device_cores"),
    "cores, all front ends": count("front_end_cores"),
}  # fmt: skip


def gpu_tables(report: Object) -> list[Table]:
    """Those that have a row."""
    ranked: dict[str, Cell] = {
        "requests a call": count("batch"), **_TIMES,
        "p50 ms for each request": lambda each: milliseconds(each["p50_ms"] / each["batch"]),
    }  # fmt: skip
    loaded, front_ends = _throughputs(report, "requests", "loaded"), _throughputs(report, "front_ends", "runs")
    tables = [
        *_search_tables(_searches(report)),
        Table.of("Ranking by requests in one call", _ranked(report), ranked),
        Table.of("Whole requests, one at a time", _stages(report), {"stage": text("name"), **_TIMES}),
        Table.of("Requests a second of one process by callers", loaded, _RATE),
        Table.of("Requests a second by front ends before one device process", front_ends, _FRONT_ENDS),
    ]
    return [table for table in tables if table.rows]


def _searches(report: Object) -> Objects:
    """Every measured call of a search, with its kind, recall and vectors; share: of the items, those eligible."""
    return [
        {"share": 1.0, **each, "of": name, "kind": str(run.get("kind")), "recall": recall(run.get("recall_at_k")),
         "items": run["items"], "dim": run["dim"], "vectors": f"{short(run['items'])} × {run['dim']}"}
        for run in sorted(_runs(report), key=lambda run: (run["items"], run["dim"]))
        for name in ("all_eligible", "filtered")
        for each in objects(run, name)
        if number(each, "batch") and number(each, "p50_ms")
    ]  # fmt: skip


def _runs(report: Object) -> Objects:
    return [each for each in objects(report, "retrieval") if number(each, "items") and number(each, "dim")]


def _ranked(report: Object) -> Objects:
    found = objects(report.get("ranking"), "by_batch")
    return [each for each in found if number(each, "batch") and number(each, "p50_ms")]


def _stages(report: Object) -> Objects:
    """Those of a request, and the whole, for which its caller waits: longer than the pipeline's own total."""
    stages, alone = dig(report, "requests", "stages"), dig(report, "requests", "alone")
    named = {name: each for name, each in stages.items() if name != "total"} if isinstance(stages, dict) else {}
    found = {**named, "whole request": alone}
    return [{**each, "name": name} for name, each in found.items() if number(each, "p50_ms")]


def _throughputs(report: Object, *path: str) -> Objects:
    found = objects(report, *path)
    return [each for each in found if number(each, "callers") and number(each, "requests_per_s") is not None]


def _search_charts(searches: Objects, rehearsal: str) -> Iterable[Chart]:
    # One name in all panels, with recall from the lowest to the highest.
    recalls: dict[str, list[str]] = {}
    for each in searches:
        recalls.setdefault(each["kind"], []).append(each["recall"])
    names = {kind: f"{kind}, recall {'–'.join(dict.fromkeys((min(of), max(of))))}" for kind, of in recalls.items()}
    drawn = [{**each, "line": names[each["kind"]], "ms": each["p50_ms"]} for each in searches]
    whole = [each for each in drawn if each["of"] == "all_eligible"]
    floors = [{**each, "line": FLOOR, "ms": each["floor_ms"]} for each in whole if number(each, "floor_ms")]
    y = f"p50, milliseconds{rehearsal}"
    if whole:
        caption = (
            "Median time of one call that finds the best 1,000 items for each of its requests, all items eligible. "
            f"Dashed: {FLOOR}, below which no exact search can be. After a name its recall@1000."
        )
        panels = series([*whole, *floors], "batch", "ms", "line", lambda each: f"{each['vectors']} vectors")
        title = "Search by requests in one call"
        yield lines("gpu-retrieval", title, caption, panels, "requests in one call", y, y_log=True, dashed=FLOOR)
    filtered = [each for each in drawn if each["of"] == "filtered"]
    largest = max((each["items"] for each in filtered), default=0)
    batches = {each["batch"] for each in filtered}
    kinds = {each["kind"] for each in filtered}
    shown = [
        each for each in drawn if each["items"] == largest and each["batch"] in batches and each["kind"] in kinds
    ]  # fmt: skip
    if shown:
        caption = (
            f"Median time of one call when only some of {largest:,} items may be shown, each request with a bitmap of "
            "its own. Smaller catalogues are in the table."
        )
        panels = series(shown, "share", "ms", "line", lambda each: f"{each['vectors']}, {each['batch']} a call")
        title = "Search by the share of eligible items"
        ticks = {each["share"]: f"{each['share']:.0%}" for each in shown}
        yield lines("gpu-filtered", title, caption, panels, "share of eligible items", y, ticks=ticks, y_log=True)


def _request_charts(ranked: Objects, stages: Objects, rehearsal: str) -> Iterable[Chart]:
    unit = f"milliseconds{rehearsal}"
    if ranked:
        caption = "One call scores 1,000 candidates for each of its requests, with transfers to and from the device."
        drawn = [
            {"batch": each["batch"], "line": name, "ms": value}
            for each in ranked
            for name, value in (
                ("p50", each["p50_ms"]), ("p99", number(each, "p99_ms")),
                ("p50 a request", each["p50_ms"] / each["batch"]),
            )
            if value
        ]  # fmt: skip
        panels = series(drawn, "batch", "ms", "line")
        title = "Ranking by requests in one call"
        yield lines("gpu-ranking", title, caption, panels, "requests in one call", unit, y_log=True)
    if stages:
        caption = (
            "Whole requests in one process over a real Redis, without gRPC, one after the other. “retrieve” and “rank” "
            "are on the device, with transfers; the whole request has the hand-over between threads in it."
        )
        rows = [Row(each["name"], each["p50_ms"], number(each, "p99_ms")) for each in stages]
        yield ranges("gpu-stages", "Where one request's time goes", caption, rows, unit)


def _throughput_charts(report: Object, bound: float | None, rehearsal: str) -> Iterable[Chart]:
    loaded, front_ends = _throughputs(report, "requests", "loaded"), _throughputs(report, "front_ends", "runs")
    if loaded:
        caption = "So many callers in the same process, without gRPC, each with its next request once it has an answer."
        rows = [Row(_callers(each), each["requests_per_s"], None, bound, _rate(each)) for each in loaded]
        title, unit = "Throughput of one process by callers", f"requests a second{rehearsal}"
        yield bars("gpu-loaded", title, caption, rows, unit, "at least")
    if front_ends:
        caption = (
            "Front ends take requests over gRPC and do everything but search and ranking, for which all of them share "
            "one process that has the device. Callers are processes of the same machine."
        )
        runs = [{"front_ends": 0, **each, "line": _callers(each)} for each in front_ends]
        title, bounds = "Throughput by front ends", {bound: f"at least {amount(bound)} a second"} if bound else {}
        panels = series(runs, "front_ends", "requests_per_s", "line")
        x = f"front ends{rehearsal}"
        yield lines("gpu-front-ends", title, caption, panels, x, "requests a second", x_log=False, bounds=bounds)


def _callers(each: Object) -> str:
    return f"{each['callers']} caller{'s' if each['callers'] != 1 else ''}"


def _rate(each: Object) -> str:
    p99 = number(each, "p99_ms")
    return f"{amount(each['requests_per_s'])}/s" + ("" if p99 is None else f", p99 {milliseconds(p99)} ms")


def _search_tables(searches: Objects) -> Iterable[Table]:
    whole, filtered = ([each for each in searches if each["of"] == name] for name in ("all_eligible", "filtered"))
    floors = [{**each, "kind": FLOOR, "recall": ""} for each in whole if number(each, "floor_ms")]
    batches = sorted({each["batch"] for each in whole})
    shares = sorted({each["share"] for each in filtered}, reverse=True)
    rows = _pivot(whole, ("vectors", "kind", "recall"), "batch", batches, _spread)
    rows += _pivot(floors, ("vectors", "kind", "recall"), "batch", batches, ms("floor_ms"))
    places = {vectors: place for place, vectors in enumerate(dict.fromkeys(row[0] for row in rows))}
    yield Table(
        "Search by requests in one call, p50 – p99 in ms",
        ["vectors", "kind", "recall@1000", *(f"{batch} a call" for batch in batches)],
        sorted(rows, key=lambda row: places[row[0]]),
    )
    yield Table(
        "Search by share of eligible items, p50 – p99 in ms",
        ["vectors", "kind", "requests a call", *(f"{share:.0%} eligible" for share in shares)],
        _pivot(filtered, ("vectors", "kind", "batch"), "share", shares, _spread),
    )


def _pivot(found: Objects, names: Sequence[str], key: str, places: Sequence[float], cell: Cell) -> list[list[str]]:
    """A row for each combination of `names`, with a cell for each value of the key."""
    rows: dict[tuple[str, ...], dict[float, str]] = {}
    for each in found:
        rows.setdefault(tuple(str(each[name]) for name in names), {})[each[key]] = cell(each)
    return [[*head, *(cells.get(place, "–") for place in places)] for head, cells in rows.items()]


def _spread(each: Object) -> str:
    return f"{milliseconds(each['p50_ms'])} – {milliseconds(each.get('p99_ms'))}"


def missing_parts(report: Object) -> list[str]:
    """What a run set out to measure and has not, as far as its settings say."""
    parts = [title for name, title in (("ranking", "ranking"), ("requests", "whole requests")) if not report.get(name)]
    chosen = _listed(report, "kinds", str) or list(dict.fromkeys(str(run.get("kind")) for run in _runs(report)))
    for items in _listed(report, "items", int):
        for dim in _listed(report, "dims", int):
            found = {str(run.get("kind")) for run in _runs(report) if (run["items"], run["dim"]) == (items, dim)}
            missing = [kind for kind in chosen if kind not in found]
            if missing or not chosen:
                what = "any search" if len(missing) == len(chosen) else " and ".join(missing)
                parts.append(f"{what} over {short(items)} × {dim}")
    return parts


def _listed(report: Object, name: str, kind: type) -> list[Any]:
    found = dig(report, "settings", name)
    return [each for each in found if isinstance(each, kind)] if isinstance(found, list) else []
