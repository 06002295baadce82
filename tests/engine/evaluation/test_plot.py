from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from engine.evaluation.metrics import MeanEstimate
from engine.evaluation.plot import TradeOff, plot_trade_off


def test_every_point_is_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Figure] = []
    monkeypatch.setattr(plt, "close", closed.append)
    points = [
        TradeOff(weight, *(MeanEstimate(weight + part, part / 10) for part in (1, 2, 3))) for weight in (0.25, 0, 0.5)
    ]
    plot_trade_off(points, "a title", tmp_path / "one.png")
    monkeypatch.undo()
    [figure] = closed
    plt.close(figure)
    assert "a title" in figure.get_suptitle()
    for axes, name, part in zip(figure.axes, ("similarity@10", "similarity@50"), (1, 2), strict=True):
        assert name in axes.get_xlabel()
        [drawn] = axes.containers
        line, _, bars = drawn
        assert line.get_xydata().tolist() == [[weight + part, weight + 3] for weight in (0, 0.25, 0.5)]
        spans = [bar.get_segments()[0] for bar in bars]
        assert [np.ptp(span, axis=0).tolist() for span in spans] == [
            pytest.approx([part / 5, 0]),
            pytest.approx([0, 3 / 5]),
        ]
        assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [
            ("0", part),
            ("0.25", part + 0.25),
            ("0.5", part + 0.5),
        ]
    assert "NDCG@10" in figure.axes[0].get_ylabel()


def test_the_picture_is_a_png_that_shows_the_points(tmp_path: Path) -> None:
    points = [
        TradeOff(
            weight,
            MeanEstimate(0.5 - weight, 0.01),
            MeanEstimate(0.4 - weight, 0.01),
            MeanEstimate(0.08 - weight / 50, 0.005),
        )
        for weight in (0.2, 0.0, 0.1)
    ]
    plot_trade_off(points, "all", tmp_path / "all.png")
    plot_trade_off(points[:1], "all", tmp_path / "one.png")
    all_of_them, one = ((tmp_path / name).read_bytes() for name in ("all.png", "one.png"))
    assert all_of_them.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(all_of_them[16:20], "big") >= 800
    assert all_of_them != one
    plot_trade_off(points[::-1], "all", tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == all_of_them
    assert not plt.get_fignums()
