"""What is counted, from archives small enough to count by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import DataError, InvalidRequest
from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.metrics import ALL_SURFACES, BEFORE, TOTALS, ExperimentData
from engine.experiments.analysis.read import count
from engine.experiments.analysis.report import make_report
from engine.experiments.analysis.report_query import Clock, ReportQuery, ReportRules
from tests.engine.experiments.analysis.archive import DAY_MS, HOUR_MS, START_MS, event, exposure, write

Rows = Sequence[dict[str, Any]]
T = START_MS + 10 * HOUR_MS


def counted(home: Path, exposures: Rows, events: Rows = (), **question: Any) -> ExperimentData:
    return count(Archive.within(write(home, exposures, events)), ReportQuery("worth", **question))


def of_unit(read: ExperimentData, unit: int, surface: str = "home") -> dict[str, float]:
    """A unit's totals by name; units are in the order of their ids."""
    return dict(zip(TOTALS, read.totals(read.surfaces.index(surface))[unit], strict=True))


class TestReturns:
    def test_a_return_takes_back_the_purchase_and_its_money(self, tmp_path: Path) -> None:
        bought = [
            event("u", "purchase", "a", T + HOUR_MS, value=20.0),
            event("u", "purchase", "b", T + HOUR_MS + 1, value=5.0),
        ]
        sent_back = event("u", "return", "a", T + 5 * DAY_MS, value=18.0)
        shown = [exposure("u", "engine", T), exposure("v", "engine", T)]
        kept = of_unit(counted(tmp_path / "kept", shown, bought), 0)
        assert (kept["revenue"], kept["converted_sessions"]) == (25.0, 1)
        # Days later, by what came back; delivered twice, it came back once.
        left = counted(
            tmp_path / "left", shown, [*bought, sent_back, {**sent_back, "offset": sent_back["offset"] + 500}]
        )
        assert (of_unit(left, 0)["revenue"], of_unit(left, 0)["converted_sessions"]) == (7.0, 1)
        # It is no visit of anybody.
        assert of_unit(left, 0)["sessions"] == kept["sessions"]
        nothing = counted(
            tmp_path / "nothing", shown, [*bought, sent_back, event("u", "return", "b", T + 2 * HOUR_MS, value=5.0)]
        )
        assert (of_unit(nothing, 0)["revenue"], of_unit(nothing, 0)["converted_sessions"]) == (2.0, 0)

    def test_of_what_was_not_bought_here_it_takes_nothing(self, tmp_path: Path) -> None:
        events = [
            event("u", "return", "a", T - 1, value=9.0),
            event("u", "purchase", "a", T + 1, value=9.0),
            event("v", "return", "a", T + 2, value=9.0),
        ]
        totals = of_unit(counted(tmp_path, [exposure("u", "engine", T), exposure("v", "engine", T)], events), 0)
        assert (totals["revenue"], totals["converted_sessions"]) == (9.0, 1)


class TestClicks:
    def test_by_request(self, tmp_path: Path) -> None:
        shown = exposure("u", "engine", T)
        request_id = shown["request_id"]
        events = [
            event("u", "click", "a", T + 1_000, request_id=request_id),
            # A second click on the same item in the same slate is the same interest.
            event("u", "click", "a", T + 2_000, request_id=request_id),
            event("u", "click", "b", T + 3_000, request_id=request_id),
            # Not in the slate; too late; of a request that is not part of this.
            event("u", "click", "z", T + 4_000, request_id=request_id),
            event("u", "click", "c", T + 25 * HOUR_MS, request_id=request_id),
            event("u", "click", "c", T + 5_000, request_id="elsewhere"),
        ]
        totals = of_unit(counted(tmp_path, [shown], events), 0)
        assert (totals["requests"], totals["items"], totals["clicks"], totals["clicked_requests"]) == (1, 3, 2, 1)

    def test_without_a_request_by_user_item_and_surface(self, tmp_path: Path) -> None:
        shown = [exposure("u", "engine", T), exposure("u", "engine", T + HOUR_MS), exposure("v", "engine", T)]
        events = [
            event("u", "click", "a", T + 2 * HOUR_MS, surface="home"),
            event("u", "click", "b", T + 2 * HOUR_MS),
            event("u", "click", "c", T + 2 * HOUR_MS, surface="cart"),
            event("u", "click", "c", T - 1_000, surface="home"),
        ]
        read = counted(tmp_path, shown, events)
        # Both belong to the second exposure, the last one before them.
        assert of_unit(read, 0)["clicks"] == 2
        assert of_unit(read, 0)["clicked_requests"] == 1
        assert of_unit(read, 1)["clicks"] == 0

    def test_an_event_that_arrived_twice_counts_once(self, tmp_path: Path) -> None:
        shown = exposure("u", "engine", T)
        bought = event("u", "purchase", "a", T + 1_000, value=5.0)
        again = bought | {"offset": bought["offset"] + 1_000_000}
        assert of_unit(counted(tmp_path, [shown], [bought, again]), 0)["revenue"] == 5.0

    def test_an_exposure_that_was_logged_twice_counts_once(self, tmp_path: Path) -> None:
        shown = exposure("u", "engine", T)
        again = shown | {"served_ms": T + 50, "offset": shown["offset"] + 1_000_000}
        read = counted(tmp_path, [shown, again, exposure("v", "control", T)])
        assert of_unit(read, 0)["requests"] == 1
        assert read.excluded.repeats == 1


class TestOnePageAsksForSeveralSurfaces:
    """From case 01-ab-page-shares-request-id: a page that asks twice sends one request id, that of its trace."""

    def page(self) -> list[dict[str, Any]]:
        return [
            exposure("u", "engine", T, request_id="page"),
            exposure("u", "engine", T + 5, request_id="page", surface="cart", item_ids=["c", "d"]),
        ]

    def test_both_are_exposures(self, tmp_path: Path) -> None:
        read = counted(tmp_path, [*self.page(), exposure("v", "engine", T), exposure("v", "engine", T, surface="cart")])
        assert [of_unit(read, 0, surface)["requests"] for surface in ("home", "cart", ALL_SURFACES)] == [1, 1, 2]
        assert read.excluded.repeats == 0

    @pytest.mark.parametrize(
        ("named", "item", "credited"),
        [
            ("home", "c", {"home": 1, "cart": 0}),
            ("cart", "c", {"home": 0, "cart": 1}),
            ("cart", "a", {"home": 0, "cart": 0}),
            ("home", "d", {"home": 0, "cart": 0}),
            ("", "a", {"home": 1, "cart": 0}),
            ("", "d", {"home": 0, "cart": 1}),
            ("", "c", {"home": 0, "cart": 1}),
        ],
    )
    def test_a_click_is_of_its_own_surface(
        self, tmp_path: Path, named: str, item: str, credited: dict[str, int]
    ) -> None:
        """Without a surface it belongs to what showed the item, and to the last of them where both did."""
        click = event("u", "click", item, T + 1_000, request_id="page", surface=named or None)
        read = counted(tmp_path, self.page(), [click])
        assert {surface: of_unit(read, 0, surface)["clicks"] for surface in credited} == credited

    def test_a_purchase_at_the_checkout_counts_once(self, tmp_path: Path) -> None:
        bought = event("u", "purchase", "c", T + 1_000, request_id="page", surface="checkout", value=4.0)
        read = counted(tmp_path, self.page(), [bought])
        assert [of_unit(read, 0, surface)["revenue"] for surface in ("home", "cart", ALL_SURFACES)] == [0.0, 4.0, 4.0]

    def test_of_several_people_each_has_their_own(self, tmp_path: Path) -> None:
        """A job that asks for a mailing uses one id for everybody."""
        shown = [exposure(user, "engine", T, request_id="mailing") for user in ("u", "v")]
        events = [
            event("v", "click", "a", T + 1_000, request_id="mailing", surface="home"),
            event("stranger", "click", "b", T + 1_000, request_id="mailing", surface="home"),
        ]
        read = counted(tmp_path, shown, events)
        assert [of_unit(read, unit)["requests"] for unit in (0, 1)] == [1, 1]
        assert [of_unit(read, unit)["clicks"] for unit in (0, 1)] == [0, 1]
        assert [of_unit(read, unit)["session_s"] for unit in (0, 1)] == [0.0, 1.0]

    def test_a_visitor_who_logs_in_is_still_the_visitor_of_the_request(self, tmp_path: Path) -> None:
        shown = exposure("visit-1", "engine", T, request_id="page", user_id=None)
        click = event("u", "click", "a", T + 1_000, request_id="page")
        assert of_unit(counted(tmp_path, [shown], [click]), 0)["clicks"] == 1


class TestPurchases:
    def test_belong_to_the_last_exposure_with_the_item(self, tmp_path: Path) -> None:
        shown = [
            exposure("u", "engine", T, item_ids=["a"]),
            exposure("u", "engine", T + 10_000, item_ids=["a"], surface="cart"),
            exposure("u", "engine", T + 20_000, item_ids=["b"]),
        ]
        read = counted(tmp_path, shown, [event("u", "purchase", "a", T + HOUR_MS, value=7.0)])
        assert of_unit(read, 0, "cart")["revenue"] == 7.0
        assert of_unit(read, 0, "home")["revenue"] == 0.0
        assert of_unit(read, 0, ALL_SURFACES)["revenue"] == 7.0

    def test_the_window(self, tmp_path: Path) -> None:
        shown = [exposure("u", "engine", T)]
        late = [event("u", "purchase", "a", T + 30 * HOUR_MS, value=7.0)]
        assert of_unit(counted(tmp_path, shown, late), 0)["revenue"] == 0.0
        longer = ReportQuery("worth", rules=ReportRules(window_ms=48 * HOUR_MS))
        assert of_unit(count(Archive.within(tmp_path), longer), 0)["revenue"] == 7.0

    @pytest.mark.parametrize("named", [True, False])
    def test_the_end_of_the_window_is_not_in_it(self, tmp_path: Path, named: bool) -> None:
        shown = [exposure("u", "engine", T), exposure("v", "engine", T)]
        window_ms = ReportRules().window_ms
        events = [
            event(user, kind, "a", T + window_ms - left_ms, request_id=one["request_id"] if named else "", value=3.0)
            for user, one, left_ms in (("u", shown[0], 1), ("v", shown[1], 0))
            for kind in ("click", "purchase")
        ]
        read = counted(tmp_path, shown, events)
        assert [(of_unit(read, unit)["clicks"], of_unit(read, unit)["revenue"]) for unit in (0, 1)] == [
            (1, 3.0),
            (0, 0),
        ]

    def test_of_the_checkout_page_go_to_where_the_item_was_shown(self, tmp_path: Path) -> None:
        bought = event("u", "purchase", "a", T + 1_000, value=7.0, request_id="checkout")
        assert of_unit(counted(tmp_path, [exposure("u", "engine", T)], [bought]), 0)["revenue"] == 7.0

    def test_each_counts_and_the_session_converts_once(self, tmp_path: Path) -> None:
        bought = [event("u", "purchase", item, T + 1_000, value=2.0) for item in "aab"]
        totals = of_unit(counted(tmp_path, [exposure("u", "engine", T)], bought), 0)
        assert (totals["revenue"], totals["converted_sessions"], totals["sessions"]) == (6.0, 1, 1)


class TestSessions:
    def test_end_with_silence(self, tmp_path: Path) -> None:
        shown = [exposure("u", "engine", T), exposure("u", "engine", T + 3 * HOUR_MS, surface="cart")]
        events = [
            event("u", "view", "q", T + 10 * 60_000),
            # 25 minutes later: still the same session.
            event("u", "view", "q", T + 35 * 60_000),
            event("u", "view", "q", T + 3 * HOUR_MS + 5_000, request_id=shown[1]["request_id"]),
            # Before anything was shown.
            event("u", "view", "q", T - 60_000),
        ]
        read = counted(tmp_path, shown, events)
        assert (of_unit(read, 0)["sessions"], of_unit(read, 0)["session_s"]) == (1, 35 * 60)
        assert (of_unit(read, 0, "cart")["sessions"], of_unit(read, 0, "cart")["session_s"]) == (1, 5)
        assert (of_unit(read, 0, "all")["sessions"], of_unit(read, 0, "all")["session_s"]) == (2, 35 * 60 + 5)

    def test_count_on_the_day_on_which_they_begin(self, tmp_path: Path) -> None:
        midnight = START_MS + DAY_MS
        shown = [exposure("u", "engine", midnight - 60_000), exposure("u", "engine", midnight + 60_000)]
        read = counted(tmp_path, shown)
        sessions = read.values[:, TOTALS.index("sessions")]
        requests = read.values[:, TOTALS.index("requests")]
        assert sessions.tolist() == [1, 0]
        assert requests.tolist() == [1, 1]


class TestWhoCounts:
    def test_testers_crossovers_and_bots_do_not(self, tmp_path: Path) -> None:
        shown = [
            exposure("user", "engine", T),
            exposure("tester", "engine", T),
            exposure("tester", "control", T + 1, overridden=True),
            exposure("crossover", "engine", T),
            exposure("crossover", "control", T + 1),
            *(exposure("bot", "control", T + n) for n in range(6)),
            *(exposure("regular", "control", T + n * HOUR_MS) for n in range(6)),
        ]
        read = counted(tmp_path, shown, rules=ReportRules(bot_hourly_requests=5))
        assert len(read.variant) == 2
        excluded = read.excluded
        assert (excluded.testers, excluded.crossovers, excluded.bots, excluded.repeats) == (1, 1, 1, 0)

    def test_visitors_without_a_user(self, tmp_path: Path) -> None:
        shown = exposure("", "engine", T, unit_id="visit-1")
        events = [
            event("visit-1", "click", "a", T + 1_000),
            event("x", "click", "b", T + 2_000, request_id=shown["request_id"]),
        ]
        assert of_unit(counted(tmp_path, [shown], events), 0)["clicks"] == 2

    def test_what_they_were_at_first(self, tmp_path: Path) -> None:
        shown = [
            exposure("u", "engine", T + 5, device="desktop", country="AT", interaction_count=9),
            exposure("u", "engine", T, device="mobile", country="DE", interaction_count=2),
        ]
        read = counted(tmp_path, shown)
        assert (read.device, read.country, read.interaction_count.tolist()) == (["mobile"], ["DE"], [2])

    def test_the_period_and_the_surface(self, tmp_path: Path) -> None:
        shown = [exposure("u", "engine", T + n * DAY_MS, surface=("home", "cart")[n % 2]) for n in range(4)]
        read = counted(tmp_path, shown, from_ms=T + DAY_MS, to_ms=T + 3 * DAY_MS)
        assert of_unit(read, 0, "all")["requests"] == 2
        alone = count(Archive.within(tmp_path), ReportQuery("worth", surface="cart"))
        assert alone.surfaces == ("cart",)
        assert of_unit(alone, 0, "cart")["requests"] == 2


class TestTheTimeBefore:
    def events(self) -> Rows:
        return [
            event("u", "click", "q", T - DAY_MS),
            event("u", "view", "q", T - DAY_MS + 60_000),
            event("u", "purchase", "q", T - 3 * DAY_MS, value=4.0),
            event("u", "click", "q", T - 20 * DAY_MS),
            event("v", "click", "q", T + HOUR_MS),
        ]

    def test_is_counted(self, tmp_path: Path) -> None:
        read = counted(tmp_path, [exposure("u", "engine", T), exposure("v", "control", T)], self.events())
        assert read.before is not None
        expected = {"clicks": 1, "sessions": 2, "purchases": 1, "revenue": 4.0, "session_s": 60}
        assert dict(zip(BEFORE, read.before[0], strict=True)) == {f"{name}_before": n for name, n in expected.items()}
        assert not read.before[1].any()

    def test_ends_where_the_experiment_begins_whatever_the_period(self, tmp_path: Path) -> None:
        shown = [exposure("u", "engine", T), exposure("u", "engine", T + 5 * DAY_MS)]
        during = [event("u", "click", "q", T + DAY_MS)]
        read = counted(tmp_path, shown, [*self.events(), *during], from_ms=T + 4 * DAY_MS)
        assert read.before is not None
        assert read.before[0, BEFORE.index("clicks_before")] == 1

    def test_is_unknown_without_events(self, tmp_path: Path) -> None:
        assert counted(tmp_path, [exposure("u", "engine", T)]).before is None
        off = ReportQuery("worth", rules=ReportRules(before_days=0))
        write(tmp_path, [], self.events())
        assert count(Archive.within(tmp_path), off).before is None


class TestGuardrails:
    def test_of_each_variant(self, tmp_path: Path) -> None:
        shown = [
            exposure("u", "engine", T, total_ms=4.0, item_ids=["a", "b"], degraded_reasons=["ranking_failed"]),
            exposure("u", "engine", T + 1, total_ms=8.0, item_ids=[]),
            exposure("v", "control", T, total_ms=2.0, item_ids=["a", "c"]),
        ]
        archive = Archive.within(write(tmp_path, shown))
        read = count(archive, ReportQuery("worth"), {"a": "books", "b": "films", "c": "books"})
        control, engine = read.guardrails
        assert (engine["latency_p50_ms"], engine["degraded_share"], engine["empty_share"]) == (6.0, 0.5, 0.5)
        assert (control["latency_p99_ms"], control["categories_in_ten"]) == (2.0, 1.0)
        assert control["coverage"] <= 1.0

    def test_coverage_is_of_equally_many_requests(self, tmp_path: Path) -> None:
        shown = [exposure("v", "control", T + n, item_ids=[f"c{n}"]) for n in range(3)]
        shown += [exposure(f"u{n}", "engine", T + n, item_ids=[f"e{n}"]) for n in range(60)]
        control, engine = counted(tmp_path, shown).guardrails
        assert control["coverage"] == engine["coverage"] == 0.5

    def test_errors_are_of_those_who_count(self, tmp_path: Path) -> None:
        shown = [
            *(exposure(user, variant, T) for user, variant in (("u", "engine"), ("v", "control"))),
            exposure("u", "engine", T + 1, surface="cart"),
            # Testers, in what they were assigned as well as in what they asked for.
            exposure("t", "engine", T, overridden=True),
        ]
        failures = [
            *(exposure("u", "engine", T + n, error="internal", item_ids=[]) for n in range(3)),
            # Nothing was ever served to this one.
            exposure("w", "engine", T, error="deadline_exceeded", item_ids=[], surface="cart"),
            exposure("t", "engine", T, error="internal", item_ids=[]),
            exposure("s", "control", T, error="internal", item_ids=[], overridden=True),
        ]
        read = counted(tmp_path, shown + failures)
        shares = {(line["surface"], line["variant"]): line["error_share"] for line in read.guardrails}
        assert shares == {
            ("all", "control"): 0.0, ("all", "engine"): 4 / 6, ("cart", "engine"): 0.5, ("home", "control"): 0.0,
            ("home", "engine"): 0.75,
        }  # fmt: skip
        # Failures are no exposures.
        assert read.totals(len(read.surfaces) - 1)[:, TOTALS.index("requests")].tolist() == [2.0, 1.0]
        made = make_report(read, ReportQuery("worth", control="control"))
        assert any("engine on home has 75.0% failed requests, control 0.0%" in note for note in made.notes)


class TestClock:
    def test_simulated_days_are_counted_by_the_request(self, tmp_path: Path) -> None:
        # Served within one minute, about three days.
        shown = [exposure("u", "engine", T + n, time_ms=T - n * DAY_MS, request_id=f"r{n}") for n in range(3)]
        clicks = [event("u", "click", "a", T - 2 * DAY_MS + 60_000, request_id="r2", received_ms=T)]
        archive = Archive.within(write(tmp_path, shown, clicks))
        by_request = ReportQuery("worth", rules=ReportRules(clock=Clock.REQUEST, before_days=0))
        [server] = count(archive, ReportQuery("worth", rules=ReportRules(before_days=0))).totals(0)
        [request] = count(archive, by_request).totals(0)
        assert server[TOTALS.index("sessions")] == 1
        assert request[TOTALS.index("sessions")] == 3
        assert request[TOTALS.index("clicks")] == 1
        assert request[TOTALS.index("session_s")] == 60.0
        made = make_report(count(archive, by_request), replace(by_request, control="engine"))
        assert any("moment that each request was about" in note for note in made.notes)
        [one_day] = count(archive, replace(by_request, from_ms=T - 2 * DAY_MS, to_ms=T - DAY_MS)).totals(0)
        assert one_day[TOTALS.index("requests")] == 1

    def test_what_came_before_is_found_for_simulated_days_that_are_long_over(self, tmp_path: Path) -> None:
        shown = [exposure("u", "engine", T + n, time_ms=T - (n + 9) * DAY_MS, request_id=f"r{n}") for n in range(3)]
        clicks = [event("u", "click", "a", T - 12 * DAY_MS, received_ms=T - 12 * DAY_MS)]
        archive = Archive.within(write(tmp_path, shown, clicks))
        # It ends days before the directory that the server has written into.
        days = ReportQuery(
            "worth", from_ms=T - 11 * DAY_MS, to_ms=T - 10 * DAY_MS, rules=ReportRules(clock=Clock.REQUEST)
        )
        before = count(archive, days).before
        assert before is not None
        assert before[0, BEFORE.index("clicks_before")] == 1

    def test_archives_from_before_have_the_servers_alone(self, tmp_path: Path) -> None:
        write(tmp_path, [exposure("u", "engine", T)])
        for path in tmp_path.rglob("engine.exposures*.parquet"):
            pl.read_parquet(path).drop("time_ms", "error").write_parquet(path)
        for clock in Clock:
            read = count(Archive.within(tmp_path), ReportQuery("worth", rules=ReportRules(clock=clock)))
            assert read.first_ms == T
            assert read.guardrails[0]["error_share"] == 0.0


class TestWhatCannotBeRead:
    def test_no_archive(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such directory; `engine process`"):
            count(Archive.within(tmp_path), ReportQuery("worth"))

    def test_nobody(self, tmp_path: Path) -> None:
        archive = Archive.within(write(tmp_path, [exposure("u", "engine", T, overridden=True)]))
        with pytest.raises(InvalidRequest, match="no exposures of 'other'"):
            count(archive, ReportQuery("other"))
        with pytest.raises(InvalidRequest, match="all 1 who saw it were testers"):
            count(archive, ReportQuery("worth"))
        with pytest.raises(InvalidRequest, match="for this period"):
            count(archive, ReportQuery("worth", from_ms=T + 90 * DAY_MS))

    def test_a_broken_file(self, tmp_path: Path) -> None:
        write(tmp_path, [exposure("u", "engine", T)])
        next((tmp_path / "exposures").glob("*/*/*.parquet")).write_bytes(b"PAR1 but not really")
        with pytest.raises(DataError, match="cannot be read"):
            count(Archive.within(tmp_path), ReportQuery("worth"))

    def test_what_is_not_finished_is_not_looked_at(self, tmp_path: Path) -> None:
        write(tmp_path, [exposure("u", "engine", T)])
        path = next((tmp_path / "exposures").glob("*/*/*.parquet"))
        (path.parent / f".{path.name}.partial").write_bytes(b"half")
        (tmp_path / "exposures" / "2026-99-99").mkdir()
        assert len(count(Archive.within(tmp_path), ReportQuery("worth")).variant) == 1


def test_events_where_they_have_always_been(tmp_path: Path) -> None:
    """An archive of events alone has no directory `events`."""
    shown = exposure("u", "engine", T)
    write(tmp_path, [shown], [event("u", "click", "a", T + 1, request_id=shown["request_id"])])
    for day in list((tmp_path / "events").iterdir()):
        day.rename(tmp_path / day.name)
    (tmp_path / "events").rmdir()
    assert of_unit(count(Archive.within(tmp_path), ReportQuery("worth")), 0)["clicks"] == 1


def test_neither_threads_nor_memory_change_a_figure(shop: Path, counted: ExperimentData) -> None:
    again = count(Archive.within(shop), ReportQuery("worth"), threads=1, memory_mb=256)
    assert (again.values == counted.values).all()
    assert (again.unit == counted.unit).all()


def test_the_rows_are_ordered_by_day(counted: ExperimentData) -> None:
    assert pl.Series(counted.day).is_sorted()
