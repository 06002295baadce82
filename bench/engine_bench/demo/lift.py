"""The last act: simulated users use the engine, and the report says what personalization is worth to them."""

import asyncio
import time
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from engine.cli.progress import progress_bar
from engine.config.serving import EngineConfig
from engine.errors import DependencyUnavailable
from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.metrics import METRICS
from engine.experiments.analysis.read import count
from engine.experiments.analysis.report import Report, make_report
from engine.experiments.analysis.report_query import Clock, ReportQuery, ReportRules, as_declared
from engine.experiments.analysis.verdict import signed
from engine_bench.simulation.run import RunSettings, simulate
from engine_bench.synthetic.tables import world_of

PATIENCE_S = 90.0
_USERS = 250
_DAYS = 3
_VISITS = 0.8
_CONCURRENCY = 4
_POLL_S = 0.1
# A handful of purchases in so short a run says nothing.
_SHOWN = ("request_ctr", "item_ctr", "session_length")


def show_lift(data: Path, archive: Path, surface: str, settings: EngineConfig, console: Console) -> dict[str, Any]:
    """Simulate, wait for the archive, and print what the engine earns against the holdout; that, and the run.

    Args:
        data: of a synthetic world, whose users' taste is known.
        archive: where `engine process` archives, exposures/ and events/.

    Raises DependencyUnavailable when the archive does not have it within PATIENCE_S.
    """
    target = f"localhost:{settings.server.port}"
    run = RunSettings(
        target, surface=surface, users=_USERS, days=_DAYS, visits_per_day=_VISITS, concurrency=_CONCURRENCY
    )
    with progress_bar() as progress:
        summary = asyncio.run(simulate(world_of(data), run, progress=progress))
    if summary["errors"]:
        ended = sum(summary["errors"].values())
        console.print(f"{ended} of {summary['sessions']} sessions ended early: {next(iter(summary['errors']))}")
    _wait(archive, summary["run"], summary["requests"])
    rules = ReportRules(clock=Clock.REQUEST, before_days=0)
    asked = ReportQuery("holdout", surface, summary["begin_ms"], summary["end_ms"], rules=rules)
    question = as_declared(asked, settings)
    report = make_report(count(Archive.within(archive), question), question)
    users = sum(one["users"] for one in summary["variants"].values())
    console.print(
        f"{users} simulated users in {summary['sessions']:,} sessions over {_DAYS} days on {surface}. The engine "
        "against the holdout:"
    )
    lifts = _lifts(report)
    for metric in METRICS:
        lift = lifts.get(metric.name)
        if lift is not None and metric.name in _SHOWN:
            console.print(
                f"  {metric.title}: {signed(lift['value'])} ({signed(lift['low'])} to {signed(lift['high'])})"
            )
    console.print(report.verdict.headline)
    titles = {metric.name: metric.title for metric in METRICS if metric.name in _SHOWN}
    return {
        "run": summary, "lifts": lifts, "headline": report.verdict.headline, "titles": titles, "users": users,
        "days": _DAYS, "surface": surface,
    }  # fmt: skip


def _lifts(report: Report) -> dict[str, dict[str, float]]:
    return {
        line.figures.metric: {"value": lift.value, "low": lift.low, "high": lift.high}
        for line in report.comparisons
        if (lift := line.figures.lift) is not None
    }


def _wait(archive: Path, run: str, requests: int) -> None:
    """Until the exposure and the events of every request are archived."""
    give_up = time.monotonic() + PATIENCE_S
    while any(_archived(archive / part, run) < requests for part in ("exposures", "events")):
        if time.monotonic() > give_up:
            raise DependencyUnavailable("what was simulated did not reach the archive; see the processor's log")
        time.sleep(_POLL_S)


def _archived(directory: Path, run: str) -> int:
    """How many requests of the run the files name."""
    files = sorted(directory.rglob("*.parquet"))
    if not files:
        return 0
    named = pl.read_parquet(files, columns=["request_id"])["request_id"].drop_nulls()
    return named.filter(named.str.starts_with(f"{run}-")).n_unique()
