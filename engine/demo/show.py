"""What the demonstration prints: slates beside histories, and where the milliseconds went."""

import numpy as np
from rich.console import Console
from rich.table import Table

# Milliseconds that the design grants each part of the request path.
BUDGETS_MS: dict[str, tuple[tuple[str, ...], float]] = {
    "features": (("features",), 2.0),
    "retrieve": (("eligibility", "blend", "retrieve"), 10.0),
    "rank": (("rank",), 30.0),
    "filter and diversify": (("filter", "rules", "explore", "diversify", "respond"), 5.0),
    "whole request": (("total",), 100.0),
}


def show_slate(console: Console, title: str, history: list[str], slate: list[tuple[str, float, str]]) -> None:
    """One person's latest items beside their recommendations: (label, score, source) each."""
    table = Table(title=title, title_justify="left")
    table.add_column("what they did last", width=48, no_wrap=True)
    table.add_column("what the engine recommends", width=48, no_wrap=True)
    table.add_column("score", justify="right")
    table.add_column("source")
    for position in range(max(len(history), len(slate))):
        before = history[position] if position < len(history) else ""
        label, score, source = slate[position] if position < len(slate) else ("", float("nan"), "")
        table.add_row(before, label, f"{score:.4f}" if label else "", source)
    console.print(table)


def summarize_stages(calls: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """p50 and p99 in milliseconds of every stage, over the calls that ran it."""
    stages = list(dict.fromkeys(stage for call in calls for stage in call))
    return {
        stage: {
            "p50": round(float(np.percentile([call[stage] for call in calls if stage in call], 50)), 4),
            "p99": round(float(np.percentile([call[stage] for call in calls if stage in call], 99)), 4),
        }
        for stage in stages
    }


def show_stages(console: Console, calls: list[dict[str, float]]) -> None:
    """The stages against their budgets; a part of several stages is summed call by call."""
    table = Table(title=f"Where the time goes, on the server, over {len(calls)} calls", title_justify="left")
    for heading in ("part", "p50 ms", "p99 ms", "budget ms", "p99 within"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part, (stages, budget_ms) in BUDGETS_MS.items():
        sums = [sum(call.get(stage, 0.0) for stage in stages) for call in calls]
        p50, p99 = np.percentile(sums, [50, 99])
        table.add_row(part, f"{p50:.2f}", f"{p99:.2f}", f"{budget_ms:g}", "yes" if p99 <= budget_ms else "no")
    console.print(table)
