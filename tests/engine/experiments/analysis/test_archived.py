"""From what a server logs to what a report counts, through the engine's own codecs and archive."""

from dataclasses import replace
from pathlib import Path

import duckdb
import polars as pl

from engine.contract.events import decode, encode
from engine.contract.exposures import Exposure, decode_exposure, encode_exposure
from engine.experiments.analysis.database import open_events
from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.read import count
from engine.experiments.analysis.report_query import ReportQuery
from engine.stream.archive import EVENTS_LAYOUT, ArchiveSink
from engine.stream.exposures import EXPOSURES_LAYOUT, EXPOSURES_SCHEMA
from engine.stream.protocols import LogRecord
from engine.types import ExperimentAssignment, RecommendQuery, StageTiming
from engine_client import build_event
from engine_client.v1 import event_pb2
from tests.engine.experiments.analysis.archive import EXPOSURE_SCHEMA, START_MS
from tests.engine.rpc.recommender import answer


def exposure(number: int, user: str, session: str, variant: str) -> Exposure:
    query = RecommendQuery(user, "home", 3, START_MS, request_id=f"r{number}", session_id=session)
    served = replace(
        answer(query),
        experiments=(ExperimentAssignment("other", "x"), ExperimentAssignment("worth", variant)),
        timings=(StageTiming("rank", 2.5), StageTiming("total", 4.25)),
    )
    return Exposure(query, served, START_MS + number)


def test_a_report_counts_what_was_logged(tmp_path: Path) -> None:
    served = [exposure(0, "u", "", "engine"), exposure(1, "", "visit", "control")]
    exposures = ArchiveSink(tmp_path / "exposures", "exposures", EXPOSURES_LAYOUT, 1_000, 1e9)
    exposures.write([LogRecord(0, offset, decode_exposure(encode_exposure(one))) for offset, one in enumerate(served)])
    exposures.flush()
    clicks = [
        build_event("u", event_pb2.EVENT_TYPE_CLICK, served[0].recommendation.item_ids[1], request_id="r0"),
        build_event("visit", event_pb2.EVENT_TYPE_PURCHASE, served[1].recommendation.item_ids[0], value=3.5),
    ]
    events = ArchiveSink(tmp_path / "events", "events", EVENTS_LAYOUT, 1_000, 1e9)
    for offset, event in enumerate(clicks):
        event.time.FromMilliseconds(START_MS + 60_000)
        events.write([LogRecord(0, offset, decode(encode(event, START_MS + 61_000)))])
    events.flush()
    counted = count(Archive.within(tmp_path), ReportQuery("worth"))
    assert counted.variants == ("control", "engine")
    # In the order of the units' ids: u, visit.
    [of_user, of_visit] = counted.totals(0).tolist()
    assert counted.variant.tolist() == [1, 0]
    assert of_user == [1, 3, 1, 1, 1, 0, 60.0, 0.0]
    assert of_visit[5] == 1
    assert of_visit[7] == 3.5
    assert counted.guardrails[0]["latency_p50_ms"] == 4.25


def test_the_tests_write_what_the_engine_does() -> None:
    assert pl.Schema(EXPOSURE_SCHEMA) == pl.Schema(EXPOSURES_SCHEMA)


def test_event_files_of_other_versions_are_read_by_the_names_of_their_columns(tmp_path: Path) -> None:
    now = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "surface": ["home"], "value": [1.5]})
    # Of before `surface` was there, and in another order.
    before = pl.DataFrame({"value": [2.5], "item_id": ["b"], "user_id": ["v"]})
    files = [str(tmp_path / "now.parquet"), str(tmp_path / "before.parquet")]
    for table, file in zip((now, before), files, strict=True):
        table.write_parquet(file)
    with duckdb.connect() as connection:
        open_events(connection, files)
        rows = connection.sql("SELECT user_id, item_id, surface, value FROM raw_events ORDER BY user_id").fetchall()
    assert rows == [("u", "a", "home", 1.5), ("v", "b", None, 2.5)]
