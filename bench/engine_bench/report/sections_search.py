"""What `make bench` says of retrieval: time beside recall, by depth, vector length, catalogue and eligible share."""

from collections.abc import Sequence

from engine_bench.report.charts import Line, lines
from engine_bench.report.drawing import draw
from engine_bench.report.numbers import milliseconds, recall
from engine_bench.report.section import Figure, Section, Table
from engine_bench.report.suite import Search
from engine_bench.targets import short


def search_section(searches: Sequence[Search]) -> Section:
    """Figures by depth and by eligible share, and all searches as a table; at least one search."""
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
    # So near to everything that it would stand upon it: the table has those.
    shares = [
        each
        for each in searches
        if each.test == "test_retrieve" and each.with_vectors and not 0.9 < (each.eligible_share or 0.0) < 1.0
    ]
    if shares:
        items = max(each.items for each in shares)
        drawn = [_share_line(shares, catalogue, items) for catalogue in sorted({each.catalogue for each in shares})]
        share_ticks = [(share, f"{share:.4g}") for share in (0.001, 0.01, 0.1, 1.0)]
        picture = draw(
            "eligible",
            "Time of a search by the share of items that may be shown; the table below has the figures",
            lambda figure, narrow: lines(
                figure,
                narrow,
                [("", drawn)],
                "share of items that may be shown",
                "p50, milliseconds",
                x_ticks=share_ticks,
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
