"""What a report says, from a shop whose truth is known to comparisons made by hand."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from engine.cli.experiment_tables import show_report
from engine.errors import InvalidRequest
from engine.experiments.analysis.compare import Bounds, Compared
from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.metrics import METRICS, ExperimentData
from engine.experiments.analysis.page import render_page
from engine.experiments.analysis.read import count
from engine.experiments.analysis.report import Report, make_report
from engine.experiments.analysis.report_query import Correction, ReportQuery, ReportRules
from engine.experiments.analysis.significance import adjusted_p_values
from engine.experiments.analysis.verdict import Comparison, Outcome, outcome, percent, sentence, signed
from engine_client.v1 import experiment_pb2 as pb
from tests.engine.experiments.analysis.archive import START_MS, exposure, write
from tests.engine.experiments.analysis.conftest import HALVES, QUESTION
from tests.engine.experiments.analysis.shop import Shop, open_shop


def line(report: Report, surface: str, metric: str) -> Comparison:
    [found] = [one for one in report.comparisons if (one.surface, one.figures.metric) == (surface, metric)]
    return found


def test_a_lift_is_found_and_said(report: Report) -> None:
    clicks = line(report, "all", "request_ctr")
    assert clicks.outcome is Outcome.MORE
    lift = clicks.figures.lift
    assert lift is not None
    assert lift.low < 0.25 < lift.high
    assert report.verdict.readable
    assert report.shares == HALVES
    assert not any(split.mismatch for split in report.splits)
    assert report.verdict.headline == clicks.sentence
    assert clicks.sentence.startswith(
        f"engine earns {percent(lift.value)} more requests that lead to a click on all surfaces together; we are 95% "
        f"sure that it is between {percent(lift.low)} and {percent(lift.high)}."
    )


def test_every_surface_metric_and_check_is_there(report: Report) -> None:
    assert [one.surface for one in report.comparisons[:: len(METRICS)]] == ["cart", "home", "all"]
    for one in report.comparisons:
        figures = one.figures
        assert figures.unadjusted is not None
        assert figures.bootstrap is not None
        width = figures.bootstrap.high - figures.bootstrap.low
        assert figures.unadjusted.low == pytest.approx(figures.bootstrap.low, abs=0.15 * width)
        assert figures.unadjusted.high == pytest.approx(figures.bootstrap.high, abs=0.15 * width)
        assert figures.anytime is not None
        assert figures.lift is not None
        assert figures.anytime.low < figures.lift.low < figures.lift.high < figures.anytime.high


def test_what_people_did_before_takes_noise_away(report: Report) -> None:
    figures = line(report, "all", "request_ctr").figures
    kept, lift, unadjusted = figures.variance_kept, figures.lift, figures.unadjusted
    assert kept is not None
    assert kept < 0.97
    assert lift is not None
    assert unadjusted is not None
    widths = [np.log1p(one.high) - np.log1p(one.low) for one in (lift, unadjusted)]
    assert kept == pytest.approx((widths[0] / widths[1]) ** 2)


def test_the_correction_is_over_all_lines(report: Report, counted: ExperimentData) -> None:
    p = np.array([one.figures.p_value for one in report.comparisons], np.float64)
    assert [one.adjusted_p_value for one in report.comparisons] == pytest.approx(adjusted_p_values(p, Correction.HOLM))
    milder = make_report(counted, replace(QUESTION, rules=ReportRules(correction=Correction.BH)))
    pairs = zip(report.comparisons, milder.comparisons, strict=True)
    assert all((mild.adjusted_p_value or 0) <= (one.adjusted_p_value or 0) for one, mild in pairs)


def test_the_last_day_is_the_whole(report: Report) -> None:
    for metric in METRICS:
        days = [day for day in report.days if (day.surface, day.metric) == ("home", metric.name)]
        whole = line(report, "home", metric.name).figures.unadjusted
        assert days[-1].lift == whole
        widths = [day.lift.high - day.lift.low for day in days]
        assert widths[-1] < widths[0]


def test_cuts_are_parts_of_the_whole(report: Report) -> None:
    for dimension, values in (("users", {"new", "known"}), ("device", {"mobile", "desktop", "tablet"})):
        cuts = [cut for cut in report.cuts if (cut.dimension, cut.figures.metric) == (dimension, "revenue")]
        assert {cut.value for cut in cuts} == values
        assert report.cut_surface == "all"
        assert sum(cut.figures.treatment_units for cut in cuts) == report.comparisons[-1].figures.treatment_units


def test_guardrails_show_what_the_engine_changes(report: Report) -> None:
    control, engine = (
        next(one for one in report.guardrails if (one["surface"], one["variant"]) == ("all", name))
        for name in ("control", "engine")
    )
    assert engine["coverage"] > 0.9 > 0.2 > control["coverage"]
    assert engine["categories_in_ten"] > control["categories_in_ten"]
    assert engine["latency_p99_ms"] > control["latency_p99_ms"]


class TestMismatch:
    def test_the_numbers_are_not_to_be_read(self, lossy_shop: Path) -> None:
        report = make_report(count(Archive.within(lossy_shop), QUESTION), QUESTION)
        assert not report.verdict.readable
        assert report.verdict.headline.startswith("Do not read these numbers: ")
        assert {one.outcome for one in report.comparisons} == {Outcome.UNREADABLE}
        assert {cut.outcome for cut in report.cuts} == {Outcome.UNREADABLE}
        assert not any("earns" in said for said in report.verdict.sentences)

    def test_the_right_plan_makes_them_readable(self, lossy_shop: Path) -> None:
        planned = replace(QUESTION, shares={"control": 44, "engine": 56})
        report = make_report(count(Archive.within(lossy_shop), planned), planned)
        assert report.verdict.readable

    def test_one_surface_alone(self, report: Report, counted: ExperimentData) -> None:
        """Users who are missing from one surface spoil that one."""
        control = counted.variants.index("control")
        surface = counted.surfaces.index("cart")
        lost = (counted.surface == surface) & (counted.variant[counted.unit] == control) & (counted.unit % 3 == 0)
        kept = replace(
            counted,
            unit=counted.unit[~lost],
            surface=counted.surface[~lost],
            day=counted.day[~lost],
            values=counted.values[~lost],
        )
        made = make_report(kept, QUESTION)
        assert made.verdict.readable
        assert line(made, "cart", "revenue").outcome is Outcome.UNREADABLE
        assert line(made, "home", "revenue").outcome is line(report, "home", "revenue").outcome
        assert any(said.startswith("Do not read on cart") for said in made.verdict.sentences)

    def test_without_a_plan_nothing_is_proven(self, counted: ExperimentData) -> None:
        report = make_report(counted, ReportQuery("worth"))
        assert report.splits == ()
        assert "The split was not checked" in report.notes[0]


def test_nothing_found_says_what_could_have_been(tmp_path: Path) -> None:
    archive = Archive.within(open_shop(tmp_path, seed=8, shop=Shop(users=1_500, lift=0.0)))
    report = make_report(count(archive, QUESTION), QUESTION)
    assert report.verdict.headline == "No difference is sure, in any of 15 comparisons."
    [said] = report.verdict.sentences
    detectable = line(report, "all", "revenue").figures.detectable
    assert detectable is not None
    assert f"{percent(detectable)} in revenue per session" in said


def test_too_little(tmp_path: Path) -> None:
    shown = [exposure("u", "engine", START_MS, total_ms=None), exposure("v", "control", START_MS)]
    report = make_report(count(Archive.within(write(tmp_path, shown)), ReportQuery("worth")), ReportQuery("worth"))
    assert report.verdict.headline == "There is too little to compare yet."
    assert {one.outcome for one in report.comparisons} == {Outcome.UNKNOWN}
    json.dumps(report.to_dict(), allow_nan=False)
    render_page(report)
    show_report(report)


def test_the_control(counted: ExperimentData) -> None:
    turned = make_report(counted, replace(QUESTION, control="engine"))
    assert turned.control == "engine"
    assert line(turned, "all", "request_ctr").outcome is Outcome.LESS
    assert "fewer requests that lead to a click" in turned.verdict.headline
    with pytest.raises(InvalidRequest, match="nobody has seen the variant 'other', only 'control', 'engine'"):
        make_report(counted, replace(QUESTION, control="other"))
    renamed = replace(counted, variants=("a", "b"))
    with pytest.raises(InvalidRequest, match="which of the variants 'a', 'b' is the control"):
        make_report(renamed, replace(QUESTION, shares={}))
    with pytest.raises(InvalidRequest, match="shares: say nothing of the variant 'engine'"):
        make_report(counted, replace(QUESTION, shares={"control": 1}))


def test_the_message_holds_all_that_json_does(report: Report) -> None:
    written = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    message = ParseDict(written, pb.ExperimentReport())
    read = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    assert _plain(read) == _plain(written)


def _plain(value: object) -> object:
    """Without what is absent, and with the numbers that proto's JSON writes as text."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return value


@pytest.mark.parametrize(
    ("lift", "said"), [(0.1234, "+12%"), (-0.0831, "−8.3%"), (0.00421, "+0.42%"), (-0.00002, "0%"), (1.5, "+150%")]
)
def test_how_a_lift_is_written(lift: float, said: str) -> None:
    assert signed(lift) == said


@pytest.mark.parametrize(("alpha", "said"), [(0.05, "95%"), (0.1, "90%"), (0.01, "99%"), (0.001, "99.9%")])
def test_the_level_of_the_intervals_is_said_as_it_is(report: Report, alpha: float, said: str) -> None:
    rules = ReportRules(alpha=alpha)
    clicks = line(report, "all", "request_ctr")
    assert f"we are {said} sure" in sentence(clicks, rules)
    page = render_page(replace(report, rules=rules))
    assert said in page


def verdict_of(outcome: Outcome, **figures: object) -> Comparison:
    """A lift of clicks on the surface home: +20%, between 10% and 30%."""
    known: dict[str, object] = {field.name: None for field in fields(Compared)}
    known |= {"metric": "request_ctr", "lift": Bounds(0.2, 0.1, 0.3), "p_value": 0.001}
    return Comparison("home", "engine", Compared(**(known | figures)), outcome=outcome)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("anytime", "early"),
    [
        (None, False),
        (Bounds(0.2, 0.05, 0.4), False),
        (Bounds(-0.2, -0.4, -0.05), False),
        (Bounds(0.2, -0.05, 0.4), True),
        (Bounds(0.2, 0.0, 0.4), True),
    ],
)
def test_who_looks_early_is_told_what_is_not_sure_yet(anytime: Bounds | None, early: bool) -> None:
    said = sentence(verdict_of(Outcome.MORE, anytime=anytime), ReportRules())
    assert ("not sure yet" in said) is early
    assert "earns 20% more requests that lead to a click on home" in said
    assert "between 10% and 30%" in said


def test_a_loss_is_said_from_the_least_to_the_most() -> None:
    said = sentence(verdict_of(Outcome.LESS, lift=Bounds(-0.2, -0.3, -0.1)), ReportRules())
    assert "earns 20% fewer requests" in said
    assert "between 10% and 30%" in said


@pytest.mark.parametrize(
    ("adjusted", "lift", "expected"),
    [
        (0.0499, Bounds(0.2, 0.1, 0.3), Outcome.MORE),
        (0.0499, Bounds(-0.2, -0.3, -0.1), Outcome.LESS),
        (0.05, Bounds(0.2, 0.1, 0.3), Outcome.UNSURE),
        (None, Bounds(0.2, 0.1, 0.3), Outcome.UNKNOWN),
        (0.01, None, Outcome.UNKNOWN),
    ],
)
def test_what_may_be_said(adjusted: float | None, lift: Bounds | None, expected: Outcome) -> None:
    figures = verdict_of(Outcome.UNKNOWN, lift=lift).figures
    assert outcome(figures, adjusted, ReportRules(), spoiled=False) is expected
    assert outcome(figures, adjusted, ReportRules(), spoiled=True) is Outcome.UNREADABLE


@pytest.mark.parametrize(
    ("p", "detectable", "said"), [(0.049, 0.1, "Alone it would count"), (0.05, 0.1, "of 10% would have been found")]
)
def test_what_is_not_sure_says_why(p: float, detectable: float, said: str) -> None:
    assert said in sentence(verdict_of(Outcome.UNSURE, p_value=p, detectable=detectable), ReportRules())


def test_a_question_that_cannot_be_asked() -> None:
    with pytest.raises(InvalidRequest, match="later than"):
        ReportQuery("worth", from_ms=2, to_ms=2)
    with pytest.raises(InvalidRequest, match="alpha"):
        ReportRules(alpha=0.7)
    with pytest.raises(InvalidRequest, match="window_ms"):
        ReportRules(window_ms=0)
