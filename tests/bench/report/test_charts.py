"""What the forms of picture promise to those who fill them."""

from engine_bench.report.charts import Line, lines
from engine_bench.report.drawing import require_matplotlib


def test_a_line_looks_the_same_in_a_panel_that_lacks_others() -> None:
    figure = require_matplotlib().figure.Figure(layout="constrained")
    first, second, floor = Line("a", [1, 2], [1, 2]), Line("b", [1, 2], [3, 4]), Line("f", [1, 2], [1, 1], pale=True)
    panels = [("", [floor, first, second]), ("", [second]), ("", [floor, first]), ("", [second]), ("", [first])]
    lines(figure, False, panels, "x", "y")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == len(panels)
    assert [axes.get_subplotspec().get_geometry()[:2] for axes in shown] == [(3, 2)] * 5
    colours = {
        (line.label, drawn.get_color(), drawn.get_marker())
        for axes, (_, wanted) in zip(shown, panels, strict=True)
        for line, drawn in zip(wanted, axes.get_lines(), strict=True)
    }
    assert len(colours) == 3
    assert len({colour for _, colour, _ in colours}) == 3
