"""The pictures of `engine bench gpu`."""

from collections.abc import Sequence
from typing import Final

from engine_bench.report.charts import Bar, Line, Span, bars, lines, rows_height, spans
from engine_bench.report.drawing import draw
from engine_bench.report.gpu import FLOOR, GpuRun, GpuSearch, Throughput
from engine_bench.report.numbers import amount, milliseconds, recall
from engine_bench.report.section import Figure

_KINDS: Final = {
    "exact-fused": "the engine's own kernel, which reads every item once, filters included",
    "exact-cuvs": "FAISS's exact search with the kernels of cuVS",
    "exact-classic": "FAISS's exact search with kernels of its own",
    "exact-float16": "FAISS's exact search on the processor",
    "cagra": "a graph over the items, which is approximate",
}


def gpu_figures(run: GpuRun, requests_target: float | None) -> list[Figure]:
    """Those for which there are figures. requests_target: how many a second it should be at least."""
    bound = None if run.rehearsal else requests_target
    drawn = [
        _retrieval(run),
        _filtered(run),
        _ranking(run),
        _stages(run),
        _loaded(run, bound),
        _front_ends(run, bound),
    ]
    return [figure for figure in drawn if figure is not None]


def _retrieval(run: GpuRun) -> Figure | None:
    panels = [
        (f"{_vectors(items, dim)} vectors", found)
        for items, dim in run.sizes
        if (found := [*_batch_lines(run, items, dim), *_floor_line(run, items, dim)])
    ]
    if not panels:
        return None
    batches = sorted({each.batch for search in run.searches for each in search.all_eligible})
    rows = -(-len(panels) // 2) if len(panels) > 3 else 1
    picture = draw(
        "gpu-retrieval",
        "Time of a search by requests in one call: "
        + "; ".join(
            f"{title}, {line.label}: {_points(line)}" for title, drawn in panels for line in drawn if not line.pale
        ),
        lambda figure, narrow: lines(
            figure,
            narrow,
            panels,
            _marked(run, "requests in one call"),
            "p50, milliseconds (logarithmic)",
            x_ticks=_ticks(batches),
            y_log=True,
        ),
        1.5 + 2.3 * rows,
        1.9 + 2.1 * len(panels),
    )
    caption = (
        "Median time of one call that finds the best 1,000 items for each of its requests, all items eligible; lower "
        f"is better. Dashed: {FLOOR}, below which no exact search can be (above in words). Behind each name its "
        f"recall@1000, from lowest to highest of the panels. {_told(run.kinds)}"
    )
    return Figure("gpu-retrieval", f"Search by requests in one call{_marked_title(run)}", picture, caption)


def _batch_lines(run: GpuRun, items: int, dim: int) -> list[Line]:
    return [
        _line(_with_recall(run, search.kind), [(each.batch, each.p50_ms) for each in search.all_eligible])
        for search in _of(run, items, dim)
        if search.all_eligible
    ]


def _floor_line(run: GpuRun, items: int, dim: int) -> list[Line]:
    floors = {
        each.batch: each.floor_ms
        for search in _of(run, items, dim)
        for each in search.all_eligible
        if each.floor_ms is not None and each.floor_ms > 0
    }
    return [_line(FLOOR, list(floors.items()), pale=True)] if floors else []


def _filtered(run: GpuRun) -> Figure | None:
    """Of the largest catalogue: those of all would be too many to see anything."""
    items = max((each.items for each in run.searches if each.filtered), default=0)
    searches = [each for each in run.searches if each.items == items and each.filtered]
    if not searches:
        return None
    batches = sorted({each.batch for search in searches for each in search.filtered})
    panels = [
        (f"{_vectors(items, dim)}, {_requests(batch)} a call", drawn)
        for dim in sorted({each.dim for each in searches})
        for batch in batches
        if (drawn := [line for each in searches if each.dim == dim for line in _share_lines(run, each, batch)])
    ]
    shares = sorted({x for _, drawn in panels for line in drawn for x in line.xs})
    rows = -(-len(panels) // 2) if len(panels) > 3 else 1
    picture = draw(
        "gpu-filtered",
        "Time of a search by the share of eligible items: "
        + "; ".join(f"{title}, {line.label}: {_points(line)}" for title, drawn in panels for line in drawn),
        lambda figure, narrow: lines(
            figure,
            narrow,
            panels,
            _marked(run, "share of items that may be shown"),
            "p50, milliseconds (logarithmic)",
            x_ticks=[(share, f"{share:.0%}") for share in shares],
            y_log=True,
        ),
        1.5 + 2.3 * rows,
        1.9 + 2.1 * len(panels),
    )
    caption = (
        f"Median time of one call when only some of {items:,} items may be shown, each request with a bitmap of its "
        "own. At 100% everything may be. A search that cannot leave items out itself finds more than it needs and "
        "drops the rest, or a scan on the processor stands in for it. Recall as above: of "
        "searches among all items. Smaller catalogues are in the table."
    )
    return Figure("gpu-filtered", f"Search by the share of eligible items{_marked_title(run)}", picture, caption)


def _share_lines(run: GpuRun, search: GpuSearch, batch: int) -> list[Line]:
    unfiltered = [each for each in search.all_eligible if each.batch == batch]
    every = [(each.share, each.p50_ms) for each in (*search.filtered_by(batch), *unfiltered)]
    return [_line(_with_recall(run, search.kind), every)] if every else []


def _ranking(run: GpuRun) -> Figure | None:
    if not run.ranking:
        return None
    drawn = [
        _line("a call, p50", [(each.batch, each.p50_ms) for each in run.ranking]),
        _line("a call, p99", [(each.batch, each.p99_ms) for each in run.ranking if each.p99_ms]),
        _line("each of its requests, p50", [(each.batch, each.p50_ms / each.batch) for each in run.ranking]),
    ]
    drawn = [line for line in drawn if line.xs]
    picture = draw(
        "gpu-ranking",
        "Time of ranking by requests in one call: " + "; ".join(f"{line.label} {_points(line)}" for line in drawn),
        lambda figure, narrow: lines(
            figure,
            narrow,
            [("", drawn)],
            _marked(run, "requests in one call"),
            "milliseconds (logarithmic)",
            x_ticks=_ticks([each.batch for each in run.ranking]),
            y_log=True,
        ),
        3.6,
        3.9,
    )
    caption = (
        "One call scores the candidates of all its requests, 1,000 each, with copies to and from the device. The "
        "third line is the first divided by the requests: as far as it falls, sharing a call makes up for waiting."
    )
    return Figure("gpu-ranking", f"Ranking by requests in one call{_marked_title(run)}", picture, caption)


def _stages(run: GpuRun) -> Figure | None:
    whole = [] if run.alone is None else [run.alone]
    rows = [Span(each.name, each.p50_ms, each.p99_ms) for each in (*run.stages, *whole)]
    if not rows:
        return None
    picture = draw(
        "gpu-stages",
        "Time of each stage: " + "; ".join(f"{row.label} p50 {milliseconds(row.p50)} ms" for row in rows),
        lambda figure, narrow: spans(figure, narrow, rows, _marked(run, "milliseconds")),
        rows_height(len(rows)),
    )
    caption = (
        f"Whole requests{_over(run)} in one process over a real Redis, without gRPC, one after the other, p50 to p99 "
        "of each stage in the order in which they run. “retrieve” and “rank” are on the device, with copies; “queue” "
        "is the wait for a thread; the whole request has the hand-over between threads in it, which no stage has."
    )
    return Figure("gpu-stages", f"Where one request's time goes{_marked_title(run)}", picture, caption)


def _loaded(run: GpuRun, bound: float | None) -> Figure | None:
    if not run.loaded:
        return None
    rows = [Bar(_callers(each.callers), each.per_s, _rate(each), bound) for each in run.loaded]
    unit = _marked(run, "requests a second")
    picture = draw(
        "gpu-loaded",
        "Requests a second by callers: " + "; ".join(f"{row.label} {row.text}" for row in rows),
        lambda figure, narrow: bars(figure, narrow, rows, unit, "target: at least"),
        rows_height(len(rows), legend=bound is not None),
    )
    caption = (
        "So many callers in the same process, without gRPC, each with its next request as soon as it has an answer: "
        "how many are answered a second, and the p99 of one. Python code of one process runs on one core, so that "
        "this is rather what that core can do than what the device can."
    )
    return Figure("gpu-loaded", f"Throughput of one process by callers{_marked_title(run)}", picture, caption)


def _front_ends(run: GpuRun, bound: float | None) -> Figure | None:
    if not run.front_ends:
        return None
    asking = sorted({each.callers for each in run.front_ends})
    drawn = []
    for callers in asking:
        found = sorted(
            (each for each in run.front_ends if each.callers == callers), key=lambda each: each.front_ends or 0
        )
        drawn.append(_line(_callers(callers), [(each.front_ends or 0, each.per_s) for each in found]))
    counts = sorted({int(x) for line in drawn for x in line.xs})
    picture = draw(
        "gpu-front-ends",
        "Requests a second by front ends: "
        + "; ".join(
            f"{each.front_ends} front ends, {_callers(each.callers)}: {_rate(each)}" for each in run.front_ends
        ),
        lambda figure, narrow: lines(
            figure,
            narrow,
            [("", drawn)],
            _marked(run, "front ends"),
            "requests a second",
            x_ticks=_ticks(counts),
            bounds=[] if bound is None else [(bound, f"target: at least {amount(bound)} a second")],
        ),
        3.8,
        4.1,
    )
    caption = (
        "Front ends are processes that take requests over gRPC and do everything but search and ranking, for which "
        "all of them share one process that has the device. Callers are in processes of their own on the same "
        "machine, each with one request after the other. Latencies are in the table."
    )
    return Figure("gpu-front-ends", f"Throughput by front ends{_marked_title(run)}", picture, caption)


def _callers(count: int) -> str:
    return "1 caller" if count == 1 else f"{count} callers"


def _rate(each: Throughput) -> str:
    p99 = f", p99 {milliseconds(each.p99_ms)} ms" if each.p99_ms is not None else ""
    return f"{amount(each.per_s)}/s{p99}"


def _of(run: GpuRun, items: int, dim: int) -> list[GpuSearch]:
    return [each for each in run.searches if (each.items, each.dim) == (items, dim)]


def _vectors(items: int, dim: int) -> str:
    return GpuSearch("", items, dim, None, [], []).vectors


def _requests(batch: int) -> str:
    return "1 request" if batch == 1 else f"{batch} requests"


def _with_recall(run: GpuRun, kind: str) -> str:
    """The same label in all panels, so that the legend has one line for a kind: recall from lowest to highest."""
    found = sorted({recall(each.recall) for each in run.searches if each.kind == kind and each.recall is not None})
    return f"{kind}, recall {'–'.join(dict.fromkeys((found[0], found[-1])))}" if found else kind


def _line(label: str, points: Sequence[tuple[float, float]], pale: bool = False) -> Line:
    ordered = sorted(points)
    return Line(label, [x for x, _ in ordered], [y for _, y in ordered], pale=pale)


def _points(line: Line) -> str:
    return ", ".join(f"{milliseconds(y)} ms at {x:g}" for x, y in zip(line.xs, line.ys, strict=True))


def _ticks(counts: Sequence[int]) -> list[tuple[float, str]]:
    return [(count, str(count)) for count in counts]


def _over(run: GpuRun) -> str:
    return f" over {run.request_items:,} items" if run.request_items else ""


def _told(kinds: Sequence[str]) -> str:
    return " ".join(f"“{kind}”: {_KINDS[kind]}." for kind in kinds if kind in _KINDS)


def _marked(run: GpuRun, axis: str) -> str:
    """What keeps a picture that stands alone from being taken for a GPU's."""
    return f"rehearsed on the processor, not on a GPU:\n{axis}" if run.rehearsal else axis


def _marked_title(run: GpuRun) -> str:
    return " (rehearsal on the processor)" if run.rehearsal else ""
