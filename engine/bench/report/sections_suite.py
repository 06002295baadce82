"""What `make bench` says: the request and its stages, growth, searches, kernels."""

from collections.abc import Sequence

from engine.bench.report.charts import Bar, Line, Span, bars, lines, rows_height, spans
from engine.bench.report.drawing import draw
from engine.bench.report.numbers import amount, milliseconds, recall
from engine.bench.report.read import number
from engine.bench.report.section import Figure, Section, Table
from engine.bench.report.suite import PARTS, STAGES, Kernel, Search, StageAlone, Suite
from engine.bench.targets import BUDGETS_MS, GROWTH_AT_MOST, short

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
        sections.append(_search(suite.searches))
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
        for stage in STAGES
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


def _search(searches: Sequence[Search]) -> Section:
    figures = []
    depths = [each for each in searches if each.test == "test_retrieve_depth"]
    dims = sorted({each.dim for each in depths if each.dim})
    if dims:
        panels = [
            (
                f"vectors of {dim}",
                [_depth_line(depths, dim, items) for items in sorted({each.items for each in depths})],
            )
            for dim in dims
        ]
        ticks = [(k, str(k)) for k in sorted({each.k for each in depths})]
        picture = draw(
            "depth",
            "Time of a search by how many items it returns; the table below has the figures",
            lambda figure, narrow: lines(
                figure, narrow, panels, "items returned (k)", "p50, milliseconds", x_ticks=ticks, x_log=True
            ),
            3.6,
            5.6,
        )
        caption = (
            "Median time of one search on one core, by depth, vector length and catalogue size, with 95% of the items "
            "eligible. The number at each point is its recall@k against an exact search with 64 queries that "
            "calibration never saw. The index is calibrated for the top 1000; other depths get what that gives them."
        )
        figures.append(Figure("depth", "By depth and vector length", picture, caption))
    shares = [each for each in searches if each.test == "test_retrieve" and each.with_vectors]
    if shares:
        items = max(each.items for each in shares)
        drawn = [_share_line(shares, catalogue, items) for catalogue in sorted({each.catalogue for each in shares})]
        ticks = [(share, f"{share:.4g}") for share in (0.001, 0.01, 0.1, 1.0)]
        picture = draw(
            "eligible",
            "Time of a search by the share of items that may be shown; the table below has the figures",
            lambda figure, narrow: lines(
                figure, narrow, [("", drawn)], "share of items that may be shown", "p50, milliseconds", x_ticks=ticks
            ),
            3.6,
            3.9,
        )
        caption = (
            f"Median time of a search for 1000 among {items:,} items when only some of them may be shown, through the "
            "bitmap that every request has. The number at each point is recall against an exact search among the "
            "eligible. “clustered” is the harder catalogue, whose clusters are wider than the top 1000."
        )
        figures.append(Figure("eligible", "By the share of eligible items", picture, caption))
    rows = [
        [
            f"{short(each.items)} × {each.dim or '–'}, {each.catalogue}",
            each.index,
            str(each.k),
            f"{each.eligible_share:g}" if each.eligible_share is not None else "–",
            "yes" if each.with_vectors else "no",
            milliseconds(each.p50_ms),
            milliseconds(each.p99_ms),
            recall(each.recall),
        ]
        for each in searches
    ]
    columns = ["catalogue", "index", "k", "eligible", "exact below 2%", "p50 ms", "p99 ms", "recall@k"]
    return Section(
        "search",
        "Retrieval and its recall",
        "bench",
        [
            "An approximate search is worth its time only beside its recall: the share of the exact best k that it "
            "finds. Every figure here has it."
        ],
        figures,
        [Table("All searches", columns, rows)],
    )


def _depth_line(depths: Sequence[Search], dim: int, items: int) -> Line:
    points = sorted((each for each in depths if (each.dim, each.items) == (dim, items)), key=lambda each: each.k)
    return Line(
        f"{short(items)} items",
        [each.k for each in points],
        [each.p50_ms for each in points],
        [recall(each.recall) for each in points],
    )


def _share_line(shares: Sequence[Search], catalogue: str, items: int) -> Line:
    points = sorted(
        (each for each in shares if (each.catalogue, each.items) == (catalogue, items)),
        key=lambda each: each.eligible_share or 0.0,
    )
    return Line(
        catalogue,
        [each.eligible_share or 0.0 for each in points],
        [each.p50_ms for each in points],
        [recall(each.recall) for each in points],
    )


def _stages(stages: Sequence[StageAlone]) -> Section:
    rows = [
        [
            " ".join(part for part in (each.stage, each.detail) if part),
            short(each.items),
            milliseconds(each.p50_ms),
            milliseconds(each.p99_ms),
            recall(each.recall) if each.recall is not None else "",
        ]
        for each in stages
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
        [Table("Stages", ["stage", "items", "p50 ms", "p99 ms", "recall@k"], rows)],
    )


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
            lambda figure, narrow: bars(figure, narrow, rows, "times as fast as NumPy"),
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
