from pathlib import Path

from engine.evaluation.metrics import MeanEstimate
from engine.evaluation.plot import TradeOff, plot_trade_off


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
    plot_trade_off(points[:1], "one", tmp_path / "one.png")
    all_of_them, one = ((tmp_path / name).read_bytes() for name in ("all.png", "one.png"))
    assert all_of_them.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(all_of_them[16:20], "big") >= 800
    assert all_of_them != one
    plot_trade_off(points[::-1], "all", tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == all_of_them
