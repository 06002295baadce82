"""What `engine experiment` prints."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.experiments.analysis.compare import Bounds
    from engine.experiments.analysis.ope import OffPolicy
    from engine.experiments.analysis.plan_read import MetricPlan, Traffic
    from engine.experiments.analysis.report import Report

_WIDTH = 120
_STYLES = {"more": "bold green", "less": "bold red", "unreadable": "dim", "unsure": "", "unknown": "dim"}


def show_report(report: "Report") -> None:
    """Verdict, lines, split, guardrails, notes."""
    from engine.experiments.analysis.page import written
    from engine.experiments.analysis.verdict import METRIC_OF, signed

    console = Console(width=_WIDTH, highlight=False)
    console.print(report.verdict.headline, style="bold" if report.verdict.readable else "bold red")
    for sentence in report.verdict.sentences:
        console.print(f"  {sentence}")
    sureness = report.rules.confidence
    table = Table(title=f"{report.experiment}, held against {report.control}")
    for heading in ("surface", "variant", "metric"):
        table.add_column(heading, no_wrap=True)
    for heading in (report.control, "variant", f"lift ({sureness})", "looking early", "p corrected"):
        table.add_column(heading, justify="right")
    for line in report.comparisons:
        figures = line.figures
        table.add_row(
            line.surface,
            line.variant,
            METRIC_OF[figures.metric].title,
            written(figures.control_value, figures.metric),
            written(figures.treatment_value, figures.metric),
            "–" if figures.lift is None else f"{signed(figures.lift.value)} ({_span(figures.lift)})",
            "–" if figures.anytime is None else _span(figures.anytime),
            "–" if line.adjusted_p_value is None else f"{line.adjusted_p_value:.3g}",
            style=_STYLES[line.outcome],
            end_section=figures.metric == report.comparisons[-1].figures.metric,
        )
    console.print(table)
    _show_trust(console, report)
    for note in report.notes:
        console.print(f"- {note}")


def _show_trust(console: Console, report: "Report") -> None:
    table = Table(title="guardrails")
    for heading in ("surface", "variant"):
        table.add_column(heading)
    for heading in ("requests", "p50 ms", "p99 ms", "errors", "degraded", "empty", "coverage", "categories in 10"):
        table.add_column(heading, justify="right")
    for line in report.guardrails:
        table.add_row(
            line["surface"],
            line["variant"],
            f"{line['requests']:,}",
            *("–" if line[name] is None else f"{line[name]:.1f}" for name in ("latency_p50_ms", "latency_p99_ms")),
            f"{line['error_share']:.2%}",
            f"{line['degraded_share']:.2%}",
            f"{line['empty_share']:.2%}",
            "–" if line["coverage"] is None else f"{line['coverage']:.1%}",
            "–" if line["categories_in_ten"] is None else f"{line['categories_in_ten']:.1f}",
        )
    console.print(table)
    for split in report.splits:
        counts = ", ".join(f"{name} {count:,} of {split.expected[name]:.4g}" for name, count in split.counts.items())
        verdict = "not as planned" if split.mismatch else "as planned"
        console.print(f"split on {split.surface}: {counts}: {verdict} (p = {split.p_value:.2g})")


def show_plan(
    plans: "Sequence[MetricPlan]", traffic: "Traffic", lift: float, shares: "Sequence[float]", power: float
) -> None:
    """One line a metric."""
    from engine.experiments.analysis.plan_read import WEEKS
    from engine.experiments.analysis.verdict import METRIC_OF, percent

    console = Console(width=_WIDTH, highlight=False)
    control, treatment = (share / sum(shares) for share in shares)
    table = Table(
        title=f"to find a lift of {percent(lift)} with a chance of {power:.0%}, {control:.1%} : {treatment:.1%}"
    )
    table.add_column("metric", no_wrap=True)
    headings = ["now", "spread", "users", "days", *(f"in {weeks} wk" for weeks in WEEKS)]
    for heading in headings:
        table.add_column(heading, justify="right")
    for plan in plans:
        known = METRIC_OF.get(plan.metric)
        table.add_row(
            known.title if known else plan.metric,
            f"{plan.value:.4g}",
            f"{plan.spread:.2f}",
            f"{plan.units:,}",
            f"{plan.days:,.1f}",
            *(f"±{percent(one)}" for one in plan.detectable),
        )
    console.print(table)
    console.print(
        f"{traffic.units_per_day:,.0f} new users a day in both variants together. Run whole weeks, and decide on the "
        "length beforehand."
    )


def show_off_policy(result: "OffPolicy", variant: str, reward: str) -> None:
    """The estimates, and how much they rest on."""
    console = Console(width=_WIDTH, highlight=False)
    table = Table(title=f"{reward} per exposure, on the {result.requests:,} exposures to {variant}")
    table.add_column("estimate")
    for heading in ("value", "low", "high"):
        table.add_column(heading, justify="right")
    rows = [
        (f"as served ({variant})", result.logged),
        ("target, inverse propensity", result.ips),
        ("target, self-normalized", result.snips),
        ("target, doubly robust", result.doubly_robust),
    ]
    for name, bounds in rows:
        if bounds is not None:
            table.add_row(name, f"{bounds.value:.5g}", f"{bounds.low:.5g}", f"{bounds.high:.5g}")
    console.print(table)
    console.print(
        f"support {result.support:.3f}, effective items {result.effective_items:,.0f}, largest weight "
        f"{result.largest_weight:,.1f}"
    )
    if result.support < 0.9:
        console.print(
            "The log could not have shown a good part of what the target would: do not read the estimates.",
            style="bold red",
        )


def _span(bounds: "Bounds") -> str:
    from engine.experiments.analysis.verdict import signed

    return f"{signed(bounds.low)} to {signed(bounds.high)}"
