"""What the demonstration prints: slates beside histories, and where the milliseconds went."""

from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from engine import stages

# Of each part of a request its stages, and the milliseconds that it may take.
BUDGETS_MS: Final = {part: (stages.stages_of(part), budget) for part, budget in stages.BUDGETS_MS.items()} | {
    "whole request": (("total",), 100.0)
}
SHOWN: Final = 10
_WIDTH: Final = 32


def show_slate(console: Console, user: dict[str, Any]) -> None:
    """One user's latest items beside their recommendations; see engine_bench.demo.users for what is in `user`."""
    history, slate = user["history"][:SHOWN], user["items"][:SHOWN]
    moved = any(item["relevance_position"] not in (None, item["position"]) for item in slate)
    table = Table(title=user["heading"], title_justify="left")
    table.add_column("what they did last", width=_WIDTH, no_wrap=True)
    table.add_column("category", max_width=13, no_wrap=True)
    table.add_column("#", justify="right")
    table.add_column("what the engine recommends", width=_WIDTH, no_wrap=True)
    table.add_column("category", max_width=13, no_wrap=True)
    table.add_column(user["score_name"], justify="right")
    if moved:
        table.add_column("by score", justify="right")
    for position in range(max(len(history), len(slate))):
        cells = ["", ""]
        if position < len(history):
            cells = [history[position]["title"], history[position]["category"]]
        if position < len(slate):
            item = slate[position]
            cells += [str(item["position"]), item["title"], item["category"], f"{item['score']:.4f}"]
            if moved:
                cells.append("" if item["relevance_position"] is None else str(item["relevance_position"]))
        table.add_row(*cells)
    console.print(table)
    for sentence in user["sentences"]:
        console.print(sentence)


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


def against_budgets(calls: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Each part of the request path with its p50_ms, p99_ms and budget_ms; its stages are summed call by call."""
    parts = []
    for part, (names, budget_ms) in BUDGETS_MS.items():
        sums = [sum(call.get(stage, 0.0) for stage in names) for call in calls]
        p50, p99 = np.percentile(sums, [50, 99])
        parts.append({"part": part, "p50_ms": float(p50), "p99_ms": float(p99), "budget_ms": budget_ms})
    return parts


def show_stages(console: Console, parts: list[dict[str, Any]], calls: int) -> None:
    """The parts of `against_budgets` as a table."""
    table = Table(title=f"Where the time goes, on the server, over {calls} calls", title_justify="left")
    for heading in ("part", "p50 ms", "p99 ms", "budget ms", "p99 within"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part in parts:
        table.add_row(
            part["part"], f"{part['p50_ms']:.2f}", f"{part['p99_ms']:.2f}", f"{part['budget_ms']:g}",
            "yes" if part["p99_ms"] <= part["budget_ms"] else "no",
        )  # fmt: skip
    console.print(table)
