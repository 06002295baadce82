"""What the load bench says: how latency grows with the rate, and its percentiles."""

from typing import Any

import numpy as np

from engine_bench.report.charts import Line, lines
from engine_bench.report.drawing import draw
from engine_bench.report.numbers import amount, milliseconds
from engine_bench.report.read import dig, number, objects
from engine_bench.report.section import Figure, Section, Table

# Rates are rounded to a tenth.
_SAME_PER_S = 0.11
_PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")


def load_sections(report: dict[str, Any]) -> list[Section]:
    """One, where there are runs."""
    runs = [run for run in objects(report, "runs") if number(run, "latency_ms", "p99") is not None]
    if not runs:
        return []
    rates = list(objects(report, "rates"))
    figures = [figure for figure in (_curve(runs, rates), _percentiles(report, runs, rates)) if figure is not None]
    items = number(report, "settings", "items")
    users = number(report, "settings", "users")
    world = f" over {items:,.0f} items and {users:,.0f} people" if items and users else ""
    ceiling = number(report, "calibration", "ceiling_per_s")
    paragraphs = [
        f"One `engine serve` process{world}, asked over real sockets by a generator that sends each request when it is "
        "due, answered or not: a latency counts from the moment that the request was due, so that a queue shows.",
        *(_said(rate) for rate in rates),
    ]
    if ceiling is not None:
        paragraphs.append(
            f"Against a server that does nothing the generator keeps its schedule up to {ceiling:,.0f} requests a "
            "second; it shares the machine with the server and Redis."
        )
    floor, unloaded = number(report, "floor", "latency_ms", "p50"), number(report, "unloaded", "latency_ms", "p50")
    stages = number(report, "unloaded", "stages_ms", "sum", "p50")
    if floor is not None and unloaded and stages is not None:
        paragraphs.append(
            f"Without load half the callers wait less than {milliseconds(unloaded)} ms. A service that does nothing "
            f"takes {milliseconds(floor)} of that, the stages on the server {milliseconds(stages)}: together they "
            f"account for {(floor + stages) / unloaded:.0%}."
        )
    return [Section("load", "Under load", "load", paragraphs, figures, _tables(report, runs))]


def _said(rate: dict[str, Any]) -> str:
    bound, held, repeats = number(rate, "bound_ms"), number(rate, "held") or 0.0, number(rate, "repeats") or 0.0
    if not number(rate, "per_s"):
        return f"No rate held 99% of the answers within {amount(bound)} ms."
    by = "the generator's own limit" if rate.get("ended_by") == "generator" else "the server"
    return (
        f"{amount(number(rate, 'per_s'))} requests a second are answered with p99 within {amount(bound)} ms, in "
        f"{held:.0f} of {repeats:.0f} repeats; what ended the search above was {by}."
    )


def _curve(runs: list[dict[str, Any]], rates: list[dict[str, Any]]) -> Figure | None:
    by_rate: dict[float, list[dict[str, Any]]] = {}
    for run in runs:
        asked = number(run, "rate_asked")
        if asked:
            by_rate.setdefault(asked, []).append(run)
    if len(by_rate) < 2:
        return None
    xs = sorted(by_rate)
    # A generator that was late tells little of the server: such runs count only where there is nothing better.
    chosen = {x: [run for run in by_rate[x] if run.get("valid")] or by_rate[x] for x in xs}
    hollow = [not any(run.get("valid") for run in by_rate[x]) for x in xs]
    drawn = [
        Line(
            name,
            xs,
            [float(np.median([number(run, "latency_ms", name) or 0.0 for run in chosen[x]])) for x in xs],
            hollow=hollow,
        )
        for name in ("p50", "p99")
    ]
    bounds = _bounds(rates)
    marks = [(per_s, f"{amount(per_s)}/s") for rate in rates if (per_s := number(rate, "per_s"))]
    picture = draw(
        "curve",
        "Latency by request rate: "
        + "; ".join(f"{x:g} a second p99 {milliseconds(y)} ms" for x, y in zip(xs, drawn[1].ys, strict=True)),
        lambda figure, narrow: lines(
            figure,
            narrow,
            [("", drawn)],
            "requests a second (logarithmic)",
            "milliseconds (logarithmic)",
            x_ticks=_round_rates(xs),
            y_log=True,
            bounds=bounds,
            marks=marks,
        ),
        4.0,
        4.2,
    )
    caption = (
        "Each point is one rate that was tried, the median where it was tried more than once. Latencies are those of "
        "answers; what was refused or came too late is in the table below. Red: the bounds that rates were searched "
        "for. Dotted: the highest rates that held them. White points: the generator was late in every run, so that the "
        "figure is no better than that."
    )
    return Figure("curve", "Latency by throughput", picture, caption)


def _round_rates(xs: list[float]) -> list[tuple[float, str]]:
    steps = [digit * 10.0**power for power in range(-1, 6) for digit in (1, 2, 5)]
    inside = [step for step in steps if xs[0] * 0.8 <= step <= xs[-1] * 1.25]
    return [(step, f"{step:g}") for step in inside]


def _bounds(rates: list[dict[str, Any]]) -> list[tuple[float, str]]:
    found = sorted({bound for rate in rates if (bound := number(rate, "bound_ms")) is not None})
    return [(bound, f"{bound:g} ms") for bound in found]


def _percentiles(report: dict[str, Any], runs: list[dict[str, Any]], rates: list[dict[str, Any]]) -> Figure | None:
    named = [("unloaded", dig(report, "unloaded") or {})]
    for rate in rates:
        bound, per_s = number(rate, "bound_ms"), number(rate, "per_s")
        # Where most repeats did not hold, a lower rate was repeated: those of the rate that held count.
        repeats = [
            run
            for run in runs
            if str(run.get("name")).startswith(f"repeat p99 <= {amount(bound)} ms")
            and abs((number(run, "rate_asked") or 0.0) - (per_s or 0.0)) < _SAME_PER_S
        ]
        if per_s and repeats:
            middle = sorted(repeats, key=lambda run: number(run, "latency_ms", "p99") or 0.0)[len(repeats) // 2]
            named.append((f"at {amount(number(middle, 'rate_asked'))}/s", middle))
    drawn = [
        Line(
            label,
            list(range(len(_PERCENTILES))),
            [number(run, "latency_ms", name) or 0.0 for name in _PERCENTILES],
            [milliseconds(number(run, "latency_ms", name)) for name in _PERCENTILES],
        )
        for label, run in named
        if all(number(run, "latency_ms", name) for name in _PERCENTILES)
    ]
    if not drawn:
        return None
    picture = draw(
        "percentiles",
        "Latency percentiles: "
        + "; ".join(f"{line.label} p50 {line.texts[0]} ms, p99 {line.texts[2]} ms" for line in drawn),
        lambda figure, narrow: lines(
            figure,
            narrow,
            [("", drawn)],
            "of all answers, this share was faster",
            "milliseconds (logarithmic)",
            x_ticks=list(enumerate(("50%", "90%", "99%", "99.9%", "all"))),
            x_log=False,
            y_log=True,
        ),
        3.8,
        4.2,
    )
    caption = (
        "How long the slowest of all answers take, as callers see it over gRPC: without load (25 requests a second, "
        "each alone), and at the highest rates that held their bound (the middle one of the repeats)."
    )
    return Figure("percentiles", "Percentiles", picture, caption)


def _tables(report: dict[str, Any], runs: list[dict[str, Any]]) -> list[Table]:
    rows = [
        [
            str(run.get("name", "")).rstrip(","),
            amount(number(run, "rate_asked")),
            amount(number(run, "rate_reached")),
            *(milliseconds(number(run, "latency_ms", name)) for name in ("p50", "p99")),
            ", ".join(f"{count} {status}" for status, count in (run.get("errors") or {}).items()) or "none",
            amount(number(run, "server_cpu_ms_per_answer")),
            "yes" if run.get("valid") else "no",
        ]
        for run in runs
    ]
    columns = ["run", "asked /s", "good answers /s", "p50 ms", "p99 ms", "failed", "CPU ms each", "generator in time"]
    tables = [Table("All runs, in order", columns, rows)]
    stages = dig(report, "unloaded", "stages_ms") or {}
    if stages:
        stage_rows = [
            [
                {"sum": "all together"}.get(stage, stage.replace("+", " + ")),
                milliseconds(number(each, "p50")),
                milliseconds(number(each, "p99")),
            ]
            for stage, each in stages.items()
            if stage != "total"
        ]
        tables.append(Table("Stages of the unloaded server", ["stage", "p50 ms", "p99 ms"], stage_rows))
    return tables
