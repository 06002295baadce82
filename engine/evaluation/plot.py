"""What diversity costs, as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

from engine.evaluation.metrics import MeanEstimate

# Files only: no window, whatever the machine offers.
matplotlib.use("Agg")

import matplotlib.pyplot as plt


@dataclass(frozen=True, slots=True)
class TradeOff:
    """What the pipeline does at one diversity weight."""

    weight: float
    similarity_at_10: MeanEstimate
    similarity_at_50: MeanEstimate
    ndcg_at_10: MeanEstimate


def plot_trade_off(points: Sequence[TradeOff], title: str, path: Path) -> None:
    """Write intra-list similarity against NDCG@10, one point a diversity weight, as a PNG.

    Up and to the left is better: more relevant, less alike. Bars are standard errors over users; the users of all
    points are the same, so that differences between points are surer than the bars look.
    """
    points = sorted(points, key=lambda point: point.weight)
    relevance = [point.ndcg_at_10 for point in points]
    lines = (
        ("similarity@10", [point.similarity_at_10 for point in points]),
        ("similarity@50", [point.similarity_at_50 for point in points]),
    )
    figure, panels = plt.subplots(1, len(lines), figsize=(10, 4.5), dpi=120, sharey=True)
    for axes, (name, similarity) in zip(panels, lines, strict=True):
        axes.errorbar(
            [estimate.mean for estimate in similarity],
            [estimate.mean for estimate in relevance],
            xerr=[estimate.standard_error for estimate in similarity],
            yerr=[estimate.standard_error for estimate in relevance],
            marker="o",
            capsize=3,
            linewidth=1,
            elinewidth=0.7,
        )
        for number, (point, x, y) in enumerate(zip(points, similarity, relevance, strict=True)):
            # To the right above and to the left below in turn: small weights lie close together.
            side, offset = ("right", (-6, -15)) if number % 2 else ("left", (5, 7))
            axes.annotate(
                f"{point.weight:g}",
                (x.mean, y.mean),
                xytext=offset,
                textcoords="offset points",
                horizontalalignment=side,
                weight="bold",
            )
        axes.set_xlabel(f"{name} within a list (mean cosine; less is more diverse)")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("NDCG@10 (± standard error over users)")
    figure.suptitle(f"{title}; numbers: diversity weight of MMR")
    figure.tight_layout()
    figure.savefig(path, format="png")
    plt.close(figure)
