"""What the forms of chart promise to those who fill them."""

import re

from engine_bench.report.charts import Point, Row, bars, lines, ranges

A, B = [Point(1, 1, "one"), Point(2, 2)], [Point(1, 3), Point(2, 4)]


def test_a_line_looks_the_same_in_a_panel_that_lacks_others() -> None:
    panels = {"first": {"floor": A, "a": A, "b": B}, "second": {"b": B}, "third": {"floor": A, "a": A}}
    chart = lines("x", "title", "caption", panels, "x", "y", dashed="floor")
    drawn = re.findall(r"stroke: var\(--([a-z]+)\); stroke-width: 1\.8", chart.svg)
    # Panel by panel, then the legend.
    assert drawn == ["muted", "blue", "orange", "orange", "muted", "blue", "muted", "blue", "orange"]


def test_a_chart_says_what_it_shows() -> None:
    timed = ranges("a", "Time", "caption", [Row("rank & <file>", 1.0, 2.0, 30.0), Row("retrieve", 0.5)])
    assert 'aria-label="Time: rank &amp; &lt;file&gt; 1.00 – 2.00 ms; retrieve 0.50 ms"' in timed.svg
    rates = bars(
        "b", "Rates", "caption", [Row("engine", 310.0, text="310/s"), Row("none", 0.0, text="none held")], "1/s"
    )
    assert 'aria-label="Rates: engine 310/s; none none held"' in rates.svg
    drawn = lines("c", "Lines", "caption", {"panel": {"p50": A}}, "x", "y")
    assert 'aria-label="Lines: panel p50: 1.00 at 1, 2.00 at 2"' in drawn.svg
    assert all(chart.png.startswith(b"\x89PNG") for chart in (timed, rates, drawn))
