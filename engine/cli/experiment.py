"""`engine experiment`: what an experiment was worth, how long one must run, what another policy would have earned."""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.needs import needs
from engine.cli.options import ConfigOption, load_config
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.experiments.analysis.files import Archive

app = typer.Typer(no_args_is_help=True)

ArchiveOption = Annotated[
    Path | None,
    typer.Option("--archive", help="Directory that holds exposures/ and events/; reports.archive without it."),
]
SurfaceOption = Annotated[str, typer.Option(help="One surface alone.")]
FromOption = Annotated[str | None, typer.Option("--from", help="First day (UTC), 2026-11-01.")]
ToOption = Annotated[str | None, typer.Option("--to", help="Last day (UTC), which counts in full.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures here, too; - prints them instead.")]


@app.command()
@needs("analysis")
def report(
    name: Annotated[str, typer.Argument(help="The experiment.")],
    archive: ArchiveOption = None,
    surface: SurfaceOption = "",
    from_day: FromOption = None,
    to_day: ToOption = None,
    control: Annotated[
        str, typer.Option(help="The variant to compare with. [default: control, holdout, baseline]")
    ] = "",
    shares: Annotated[
        str | None,
        typer.Option(
            help="Planned shares, for the check of the split: control=10,engine=90; without, those of the settings."
        ),
    ] = None,
    config: ConfigOption = None,
    json_file: JsonOption = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write the report as one HTML page.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle, or a directory of them: the items' categories, for diversity.")
    ] = None,
    window_hours: Annotated[float, typer.Option(help="A click or purchase counts for an exposure so long.")] = 24.0,
    before_days: Annotated[int, typer.Option(help="Adjust by what users did in these days before (CUPED).")] = 14,
    bot_hourly_requests: Annotated[int, typer.Option(help="Who asks more often in an hour is a bot.")] = 300,
    clock: Annotated[
        str, typer.Option(help="Count exposures by the time of the server, or of the request (simulated traffic).")
    ] = "server",
    correction: Annotated[str, typer.Option(help="For many comparisons: holm, bh or none.")] = "holm",
    alpha: Annotated[float, typer.Option(help="0.05 for intervals of 95%.")] = 0.05,
) -> None:
    """Say what each variant earns, surface by surface, how sure that is, and whether the figures may be read at all."""
    from engine.cli.experiment_tables import show_report
    from engine.experiments.analysis.read import count
    from engine.experiments.analysis.report import make_report
    from engine.experiments.analysis.report_query import HOUR_MS, ReportQuery, ReportRules, as_declared

    rules = ReportRules(
        window_ms=int(window_hours * HOUR_MS),
        before_days=before_days,
        bot_hourly_requests=bot_hourly_requests,
        correction=_correction(correction),
        alpha=alpha,
        clock=_clock(clock),
    )
    asked = ReportQuery(name, surface, *_period(from_day, to_day), control, _shares(shares), rules)
    query = as_declared(asked, load_config(config))
    made = make_report(count(_archive(archive, config), query, _categories(bundle)), query)
    if not _printed(json_file, made.to_dict()):
        show_report(made)
    if html_file is not None:
        from engine.experiments.analysis.page import render_page

        html_file.write_text(render_page(made), encoding="utf-8")


@app.command()
@needs("analysis")
def plan(
    lift: Annotated[float, typer.Option(help="The relative change that must not be missed; 0.05 is 5%.")] = 0.05,
    archive: Annotated[
        Path | None, typer.Option(help="Measure traffic and spread here; otherwise --rate and --people-per-day.")
    ] = None,
    surface: SurfaceOption = "",
    from_day: FromOption = None,
    to_day: ToOption = None,
    rate: Annotated[float | None, typer.Option(help="Share of the users who do it, e.g. buy: 0.03.")] = None,
    users_per_day: Annotated[
        float | None, typer.Option("--people-per-day", help="New users a day, in both variants together.")
    ] = None,
    shares: Annotated[str, typer.Option(help="Of control and treatment.")] = "control=50,treatment=50",
    power: Annotated[float, typer.Option(help="The chance of finding the change where it is there.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="The chance of finding one where there is none.")] = 0.05,
    json_file: JsonOption = None,
) -> None:
    """Say how many users and days an experiment takes, and what it could find in the weeks that there are."""
    from engine.cli.experiment_tables import show_plan
    from engine.experiments.analysis.files import Archive
    from engine.experiments.analysis.plan import spread_of_share
    from engine.experiments.analysis.plan_read import Traffic, plan_from_archive, plan_metric
    from engine.experiments.analysis.report_query import ReportQuery, ReportRules

    two = list(_shares(shares).values())
    if len(two) != 2:
        raise typer.BadParameter("must be two", param_hint="--shares")
    query = ReportQuery("", surface, *_period(from_day, to_day), rules=ReportRules(alpha=alpha, before_days=0))
    if archive is not None:
        traffic, plans = plan_from_archive(Archive.within(archive), query, lift, two, power)
    elif rate is not None and users_per_day is not None and users_per_day > 0:
        traffic = Traffic(0, 0.0, users_per_day)
        spread = spread_of_share(rate)
        plans = [plan_metric(f"rate {rate:g}", rate, spread, traffic, lift, two, query, power)]
    else:
        raise typer.BadParameter("either --archive, or --rate and --people-per-day (above 0)")
    if not _printed(
        json_file, {"lift": lift, "power": power, "plans": [asdict(one) for one in plans]} | asdict(traffic)
    ):
        show_plan(plans, traffic, lift, two, power)


@app.command()
@needs("analysis")
def ope(
    name: Annotated[str, typer.Argument(help="The experiment.")],
    variant: Annotated[str, typer.Argument(help="Whose traffic: the variant that was served.")],
    target: Annotated[
        Path,
        typer.Argument(
            help="Table (.parquet, .csv) of what the other policy would show: request_id, item_id, probability, and "
            "optionally predicted_reward."
        ),
    ],
    archive: ArchiveOption = None,
    reward: Annotated[str, typer.Option(help="clicks or revenue.")] = "clicks",
    surface: SurfaceOption = "",
    from_day: FromOption = None,
    to_day: ToOption = None,
    config: ConfigOption = None,
    json_file: JsonOption = None,
) -> None:
    """Estimate from logged propensities what another policy would have earned on a variant's traffic."""
    from engine.cli.experiment_tables import show_off_policy
    from engine.experiments.analysis.ope import Reward, off_policy, read_target
    from engine.experiments.analysis.report_query import ReportQuery

    if reward not in list(Reward):
        raise typer.BadParameter(f"must be one of {', '.join(Reward)}, not {reward}", param_hint="--reward")
    query = ReportQuery(name, surface, *_period(from_day, to_day))
    result = off_policy(_archive(archive, config), query, variant, read_target(target), Reward(reward))
    if not _printed(json_file, asdict(result)):
        show_off_policy(result, variant, reward)


def _archive(directory: Path | None, config: Path | None) -> "Archive":
    from engine.experiments.analysis.files import Archive

    if directory is not None:
        return Archive.within(directory)
    settings = load_config(config).reports
    if settings.archive is None:
        raise ConfigError("reports.archive: names no directory; say where exposures and events are, or use --archive")
    return Archive.within(settings.archive, settings.events)


def _period(from_day: str | None, to_day: str | None) -> tuple[int | None, int | None]:
    """The days as [from_ms, to_ms)."""
    begin, last = (_day(text, hint) for text, hint in ((from_day, "--from"), (to_day, "--to")))
    end = None if last is None else last + timedelta(days=1)
    return _ms(begin), _ms(end)


def _day(text: str | None, hint: str) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise typer.BadParameter(f"not a day like 2026-11-01: {text}", param_hint=hint) from None


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


def _shares(written: str | None) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in (written or "").split(","):
        if not part.strip():
            continue
        name, _, share = part.rpartition("=")
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            name = ""
        if not name.strip():
            raise typer.BadParameter(f"not like control=10,engine=90: {written}", param_hint="--shares")
    return shares


def _correction(written: str) -> Any:
    from engine.experiments.analysis.report_query import Correction

    if written not in list(Correction):
        raise typer.BadParameter(f"must be one of {', '.join(Correction)}, not {written}", param_hint="--correction")
    return Correction(written)


def _clock(written: str) -> Any:
    from engine.experiments.analysis.report_query import Clock

    if written not in list(Clock):
        raise typer.BadParameter(f"must be one of {', '.join(Clock)}, not {written}", param_hint="--clock")
    return Clock(written)


def _categories(bundle: Path | None) -> dict[str, str]:
    if bundle is None:
        return {}
    from engine.experiments.analysis.read import bundle_categories

    return bundle_categories(bundle)


def _printed(path: Path | None, figures: dict[str, Any]) -> bool:
    """Write JSON where it is asked for; whether it took the place of the tables."""
    if path is None:
        return False
    text = json.dumps(figures, indent=1)
    if str(path) == "-":
        sys.stdout.write(text + "\n")
        return True
    path.write_text(text, encoding="utf-8")
    return False
