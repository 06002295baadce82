"""What `make bench` says: the request and its stages, growth, kernels."""

from collections.abc import Sequence

from engine.stages import BUDGETS_MS, STAGES
from engine_bench.report.charts import Bar, Line, Span, lines, ratios, rows_height, spans
from engine_bench.report.drawing import draw
from engine_bench.report.numbers import amount, milliseconds, recall
from engine_bench.report.read import number
from engine_bench.report.section import Figure, Section, Table
from engine_bench.report.sections_search import search_section
from engine_bench.report.suite import PARTS, Kernel, StageAlone, Suite
from engine_bench.targets import GROWTH_AT_MOST, short, target_size

_PART_LABELS = {
    "features": "features",
    "retrieve": "retrieve",
    "rank": "rank",
    "respond": "filter to respond",
}
_PART_NOTES = {"features": "Redis", "retrieve": "with bitmap, blend", "rank": "1000 items", "respond": "with diversity"}


def suite_sections(suite: Suite) -> list[Section]:
    """Those for which there are figures."""
    sections = []
    if suite.items is not None:
        sections.append(_request(suite, suite.items))
        sections.append(_growth(suite))
    if suite.searches:
        sections.append(search_section(suite.searches))
    if suite.stages:
        sections.append(_stages(suite.stages))
    if suite.kernels:
        sections.append(_kernels(suite.kernels))
    return sections


def _request(suite: Suite, items: int) -> Section:
    request = suite.requests[items]
    found = number(request, "recall_at_1000")
    parts = [
        Span(
            _PART_LABELS[part], p50, number(request, "parts_ms", part, "p99"), BUDGETS_MS[part], note=_PART_NOTES[part]
        )
        for part in PARTS
        if (p50 := number(request, "parts_ms", part, "p50")) is not None
    ]
    stages = [
        Span(stage, p50, number(request, "stages_ms", stage, "p99"))
        for stage in (each.name for each in STAGES if each.name != "total")
        if (p50 := number(request, "stages_ms", stage, "p50"))
    ]
    size = f"{items:,} items"
    how = (
        "Measured inside one process over a real Redis, one request after the other, each for another person with "
        "a session of the last five minutes, under three business rules; without gRPC."
    )
    figures = []
    if parts:
        height = rows_height(len(parts)) + 0.4
        figures.append(
            Figure(
                "budget",
                "Every part against its budget",
                draw(
                    "budget",
                    "Time of each part of a request: "
                    + "; ".join(f"{row.label} p50 {milliseconds(row.p50)} ms of {row.bound:g} ms" for row in parts),
                    lambda figure, narrow: spans(figure, narrow, parts),
                    height,
                ),
                f"Dot: half of the requests were faster (p50). Square: 99 of 100 were (p99). Red: what the design "
                f"grants the part. Catalogue of {size}; recall@1000 of the search {recall(found)}. {how}",
            )
        )
    if stages:
        figures.append(
            Figure(
                "stages",
                "Where one request's time goes",
                draw(
                    "stages",
                    "Time of each stage: " + "; ".join(f"{row.label} {milliseconds(row.p50)} ms" for row in stages),
                    lambda figure, narrow: spans(figure, narrow, stages),
                    rows_height(len(stages)),
                ),
                "The same requests, stage by stage in the order in which they run. “queue” is the wait for a thread; "
                f"“rank” scores 1000 candidates in one call; “retrieve” has recall@1000 {recall(found)}.",
            )
        )
    rows = [
        [
            short(count),
            _PART_LABELS[part],
            milliseconds(number(each, "parts_ms", part, "p50")),
            milliseconds(number(each, "parts_ms", part, "p99")),
            f"{BUDGETS_MS[part]:g}",
        ]
        for count, each in suite.requests.items()
        for part in PARTS
    ]
    total = f"{milliseconds(request['p50_ms'])} ms at p50 and {milliseconds(number(request, 'p99_ms'))} ms at p99"
    return Section(
        "request",
        "One request",
        "bench",
        [
            f"A whole request over {size} takes {total}: it reads the user from Redis, mixes in the session, finds "
            "1000 candidates, ranks them, and picks 50 that are not all alike."
        ],
        figures,
        [Table("Parts by catalogue size", ["items", "part", "p50 ms", "p99 ms", "budget ms"], rows)],
    )


def _growth(suite: Suite) -> Section:
    sizes = list(suite.requests)
    rows = [
        [
            f"{count:,}",
            milliseconds(each["p50_ms"]),
            milliseconds(number(each, "p99_ms")),
            milliseconds(number(each, "stages_ms", "retrieve", "p50")),
            milliseconds(number(each, "stages_ms", "rank", "p50")),
            recall(number(each, "recall_at_1000")),
        ]
        for count, each in suite.requests.items()
    ]
    table = Table(
        "A request by catalogue size",
        ["items", "request p50 ms", "request p99 ms", "retrieve p50 ms", "rank p50 ms", "recall@1000"],
        rows,
    )
    paragraphs = [
        f"Ten times as many items must not double a request's time (bound {GROWTH_AT_MOST:g} a step): the search "
        "visits cells, whose number and size grow with the square root of the catalogue, and whatever follows "
        "sees 1000 candidates, however many there are."
    ]
    if len(sizes) < 2:
        paragraphs.append(f"Only {sizes[0]:,} items were measured: BENCH_ITEMS=100000,1000000 make bench shows growth.")
        return Section("growth", "Growth with the catalogue", "bench", paragraphs, (), [table])
    drawn = [
        _total_line(suite, "p50"),
        _total_line(suite, "p99"),
        Line("rank p50", sizes, [number(suite.requests[size], "stages_ms", "rank", "p50") or 0.0 for size in sizes]),
        Line(
            "retrieve p50",
            sizes,
            [number(suite.requests[size], "stages_ms", "retrieve", "p50") or 0.0 for size in sizes],
        ),
    ]
    recalls = ", ".join(f"{short(size)} {recall(number(suite.requests[size], 'recall_at_1000'))}" for size in sizes)
    picture = draw(
        "growth",
        "Time of a request by catalogue size: "
        + "; ".join(f"{short(size)} items p50 {milliseconds(suite.requests[size]['p50_ms'])} ms" for size in sizes),
        lambda figure, narrow: lines(
            figure,
            narrow,
            [("", drawn)],
            "items in the catalogue",
            "milliseconds",
            x_ticks=[(size, short(size)) for size in sizes],
        ),
        3.6,
        3.9,
    )
    caption = (
        "The whole request and its two largest stages, on the same machine with the same people. "
        f"Recall@1000 of the search by size: {recalls}."
    )
    return Section(
        "growth",
        "Growth with the catalogue",
        "bench",
        paragraphs,
        [Figure("growth", "Time by catalogue size", picture, caption)],
        [table],
    )


def _total_line(suite: Suite, percentile: str) -> Line:
    times = [number(request, f"{percentile}_ms") or 0.0 for request in suite.requests.values()]
    return Line(f"request {percentile}", list(suite.requests), times, [milliseconds(time) for time in times])


def _stages(stages: Sequence[StageAlone]) -> Section:
    sizes = sorted({each.items for each in stages})
    first = target_size(sizes)
    tables = [
        Table(
            f"With {items:,} items",
            ["stage", "p50 ms", "p99 ms", "recall@k"],
            [_stage_row(each) for each in stages if each.items == items],
        )
        for items in sorted(sizes, key=lambda items: (items != first, items))
    ]
    return Section(
        "alone",
        "Each stage alone",
        "bench",
        [
            "A stage that is called again and again finds its data in the processor's caches, which it shares with "
            "nobody: these are lower than the same stage's times within requests, and steadier, so that they are what "
            "to compare before and after a change."
        ],
        (),
        tables,
    )


def _stage_row(each: StageAlone) -> list[str]:
    return [
        " ".join(part for part in (each.stage, each.detail) if part),
        milliseconds(each.p50_ms),
        milliseconds(each.p99_ms),
        recall(each.recall) if each.recall is not None else "",
    ]


def _kernels(kernels: Sequence[Kernel]) -> Section:
    compared = sorted(
        ((each, each.numpy_us / each.kernel_us) for each in kernels if each.numpy_us), key=lambda pair: -pair[1]
    )
    figures = []
    if compared:
        rows = [Bar(each.name, times, f"{times:.1f}× · {_micros(each.kernel_us)}") for each, times in compared]
        picture = draw(
            "kernels",
            "How many times as fast as NumPy each kernel is: " + "; ".join(f"{row.label} {row.text}" for row in rows),
            lambda figure, narrow: ratios(figure, narrow, rows, "times as fast as NumPy"),
            rows_height(len(rows), legend=False),
        )
        caption = (
            "Compiled kernels beside the plain NumPy that does the same, at the size of a request (1000 candidates, a "
            "slate of 50). Behind each bar the kernel's own median. Both results are compared before either is timed."
        )
        figures.append(Figure("kernels", "Kernels beside NumPy", picture, caption))
    table_rows = [
        [
            each.name,
            _micros(each.kernel_us),
            _micros(each.numpy_us) if each.numpy_us else "–",
            f"{each.numpy_us / each.kernel_us:.1f}" if each.numpy_us else "–",
        ]
        for each in kernels
    ]
    return Section(
        "kernels",
        "Kernels",
        "bench",
        ["What Python would do a thousand times in each request is compiled ahead of the first one."],
        figures,
        [Table("Kernels", ["kernel", "median", "NumPy", "times as fast"], table_rows)],
    )


def _micros(value: float) -> str:
    return f"{amount(value)} µs" if value < 1000 else f"{milliseconds(value / 1000)} ms"
