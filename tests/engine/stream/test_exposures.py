"""Exposures from the answer to the archive's rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from engine.contract.exposures import Exposure, Failure, decode_exposure, encode_exposure
from engine.errors import PoisonMessage
from engine.stream.archive import ArchiveSink
from engine.stream.exposures import EXPOSURES_LAYOUT, EXPOSURES_SCHEMA
from engine.stream.protocols import LogRecord
from engine.types import DegradedReason, ExperimentAssignment, ItemSource, RecommendQuery, StageTiming, Strategy
from engine_client.v1 import exposure_pb2 as pb
from tests.engine.rpc.recommender import answer
from tests.engine.stream.conftest import NOW_MS

ASSIGNED = (ExperimentAssignment("ranking", "plain"), ExperimentAssignment("holdout", "engine", overridden=True))
# What whoever reads the archive relies on.
COLUMNS = [
    "request_id",
    "user_id",
    "unit_id",
    "surface",
    "served_ms",
    "experiments",
    "strategy",
    "bundle_version",
    "degraded_reasons",
    "item_ids",
    "scores",
    "propensities",
    "sources",
    "stages",
    "total_ms",
    "device",
    "country",
    "interaction_count",
    "partition",
    "offset",
    "time_ms",
    "error",
]


def exposure(number: int = 0, items: int = 3, served_ms: int = NOW_MS, user: str = "u") -> Exposure:
    query = RecommendQuery(
        user, "home", items, NOW_MS, device="tv", country="DE", request_id=f"r{number}", session_id="" if user else "s"
    )
    timings = (StageTiming("rank", 2.5), StageTiming("total", 4.25))
    return Exposure(query, replace(answer(query), experiments=ASSIGNED, timings=timings), served_ms)


def archived(directory: Path, exposures: list[Exposure], rows: int = 10_000) -> pl.DataFrame:
    sink = ArchiveSink(directory, "log", EXPOSURES_LAYOUT, rows, 1e9)
    sink.write([LogRecord(2, offset, decode_exposure(encode_exposure(one))) for offset, one in enumerate(exposures)])
    sink.flush()
    return pl.read_parquet(sorted(directory.rglob("*.parquet")))


def test_what_was_served_is_in_the_archive(tmp_path: Path) -> None:
    frame = archived(tmp_path, [exposure()])
    assert frame.columns == COLUMNS == list(EXPOSURES_SCHEMA)
    assert frame.schema == pl.Schema(EXPOSURES_SCHEMA)
    [row] = frame.rows(named=True)
    assert row == {
        "request_id": "r0", "user_id": "u", "unit_id": "u", "surface": "home", "served_ms": NOW_MS,
        "experiments": [
            {"experiment": "ranking", "variant": "plain", "overridden": False},
            {"experiment": "holdout", "variant": "engine", "overridden": True},
        ],
        "strategy": "personalized", "bundle_version": "bundle-7", "degraded_reasons": ["ranking_skipped"],
        "item_ids": ["u-0", "u-1", "u-2"], "scores": [1.0, 0.75, 0.5], "propensities": [1.0, 1.0, 1.0],
        "sources": ["retrieval", "retrieval", "retrieval"],
        "stages": [{"stage": "rank", "duration_ms": 2.5}, {"stage": "total", "duration_ms": 4.25}], "total_ms": 4.25,
        "device": "tv", "country": "DE", "interaction_count": 12, "partition": 2, "offset": 0,
        "time_ms": NOW_MS, "error": None,
    }  # fmt: skip


def test_files_are_laid_out_as_those_of_events(tmp_path: Path) -> None:
    frame = archived(tmp_path, [exposure(number) for number in range(3)], rows=2)
    assert frame["offset"].to_list() == [0, 1, 2]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")) == [
        "2025-11-24/16/log-2-000000000000-000000000001.parquet",
        "2025-11-24/16/log-2-000000000002-000000000002.parquet",
    ]


def test_many_rows_of_one_file_and_empty_slates(tmp_path: Path) -> None:
    sizes = [number % 4 for number in range(4_321)]
    frame = archived(tmp_path, [exposure(number, items=size) for number, size in enumerate(sizes)])
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    assert frame["request_id"].to_list() == [f"r{number}" for number in range(len(sizes))]
    assert frame["item_ids"].list.len().to_list() == sizes


def test_visitors_have_a_unit_and_no_user(tmp_path: Path) -> None:
    [row] = archived(tmp_path, [exposure(user="")]).select("user_id", "unit_id").rows()
    assert row == (None, "s")


def test_failures_are_there_without_a_slate(tmp_path: Path) -> None:
    query = replace(exposure().query, time_ms=NOW_MS - 5_000)
    failure = Failure(query, ASSIGNED[:1], NOW_MS, "deadline_exceeded")
    sink = ArchiveSink(tmp_path, "log", EXPOSURES_LAYOUT, 10, 1e9)
    both = [encode_exposure(failure), encode_exposure(exposure())]
    sink.write([LogRecord(2, offset, decode_exposure(payload)) for offset, payload in enumerate(both)])
    sink.flush()
    row, answered = pl.read_parquet(sorted(tmp_path.rglob("*.parquet"))).rows(named=True)
    assert (row["error"], row["served_ms"], row["time_ms"]) == ("deadline_exceeded", NOW_MS, NOW_MS - 5_000)
    assert row["experiments"] == [{"experiment": "ranking", "variant": "plain", "overridden": False}]
    assert (row["request_id"], row["unit_id"], row["device"]) == ("r0", "u", "tv")
    assert (row["item_ids"], row["stages"], row["degraded_reasons"]) == ([], [], [])
    assert (row["strategy"], row["bundle_version"], row["total_ms"]) == (None, None, None)
    assert answered["error"] is None


def test_every_code_of_the_engine_has_a_name() -> None:
    one = exposure()
    for strategy in Strategy:
        for source in ItemSource:
            slate = replace(one.recommendation.slate, sources=np.full(3, source, np.uint8))
            made = replace(one.recommendation, strategy=strategy, slate=slate, degraded_reasons=tuple(DegradedReason))
            row = EXPOSURES_LAYOUT.to_row(0, 0, decode_exposure(encode_exposure(one._replace(recommendation=made))))
            named = dict(zip(EXPOSURES_SCHEMA, row, strict=True))
            assert named["strategy"] == strategy.name.lower()
            assert named["sources"] == [source.name.lower()] * 3
            assert named["degraded_reasons"] == [reason.name.lower() for reason in DegradedReason]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"request_id": ""}, "request_id"),
        ({"unit_id": ""}, "unit_id"),
        ({"surface": ""}, "surface"),
        ({"strategy": 99}, "strategy"),
        ({"scores": [1.0]}, "scores: 4 for 3 items"),
        ({"sources": [1]}, "sources: 4 for 3 items"),
        ({"stages": ["more"]}, "stage_ms: 2 for 3 stages"),
        ({"degraded_reasons": [99]}, "degraded reason"),
        ({"item_ids": ["one more"], "scores": [1.0], "propensities": [1.0], "sources": [99]}, "sources: one"),
    ],
)
def test_what_cannot_be_trusted_is_poison(change: dict[str, object], said: str) -> None:
    logged = pb.LoggedExposure.FromString(encode_exposure(exposure()))
    for name, value in change.items():
        if isinstance(value, list):
            getattr(logged, name).extend(value)
        else:
            setattr(logged, name, value)
    with pytest.raises(PoisonMessage, match=said):
        decode_exposure(logged.SerializeToString())


def test_nor_can_bytes_or_a_time_that_is_none() -> None:
    with pytest.raises(PoisonMessage, match="not a LoggedExposure"):
        decode_exposure(b"\xff\xff")
    logged = pb.LoggedExposure.FromString(encode_exposure(exposure()))
    logged.ClearField("served")
    with pytest.raises(PoisonMessage, match="served"):
        decode_exposure(logged.SerializeToString())
