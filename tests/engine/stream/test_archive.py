import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.contract.events import decode, encode
from engine.data.build import load_dataset
from engine.data.tables import read_tables
from engine.errors import DependencyUnavailable, PositionLost
from engine.stream.archive import ARCHIVE_SCHEMA, EVENTS_LAYOUT, ArchiveSink, to_row
from engine.stream.protocols import LogRecord
from engine.types import EventType
from tests.engine.stream.conftest import NOW_MS, make_event
from tests.engine.stream.logs import log_now, nexts

HOUR_MS = 3_600_000


def record(offset: int, partition: int = 0, received_ms: int = NOW_MS, **changes: object) -> LogRecord:
    event = make_event(name=f"{partition}-{offset}", **{"time_ms": received_ms - 5, **changes})  # type: ignore[arg-type]
    return LogRecord(partition, offset, decode(encode(event, received_ms)))


def sink(directory: Path, rows: int = 10, age_s: float = 1e9, **more: object) -> ArchiveSink:
    return ArchiveSink(directory, "log", EVENTS_LAYOUT, rows, age_s, **more)  # type: ignore[arg-type]


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*.parquet"))


def test_files_are_named_by_hour_partition_and_offsets(tmp_path: Path) -> None:
    archive = sink(tmp_path, rows=2)
    records = [record(0), record(1), LogRecord(0, 2, None), record(3), record(4, received_ms=NOW_MS + HOUR_MS)]
    assert archive.write(records) == {0: 4}
    assert archive.flush() == {0: 5}
    assert names(tmp_path) == [
        "2025-11-24/16/log-0-000000000000-000000000001.parquet",
        "2025-11-24/16/log-0-000000000002-000000000003.parquet",
        "2025-11-24/17/log-0-000000000004-000000000004.parquet",
    ]


def test_a_file_is_closed_at_its_age(tmp_path: Path) -> None:
    now = [0.0]
    archive = sink(tmp_path, age_s=5, clock=lambda: now[0])
    assert archive.write([record(0)]) == {}
    now[0] = 5.0
    assert archive.write([]) == {0: 1}
    assert archive.write([]) == {}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    crashes=st.lists(st.integers(0, 12), max_size=6),
    rows=st.integers(1, 5),
    log=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=30),
)
def test_whatever_crashes_every_event_is_there_once(
    crashes: list[int], rows: int, log: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("archive")
    ends = [0, 0, 0]
    records = []
    for partition, hour in log:
        records.append(record(ends[partition], partition, NOW_MS + hour * HOUR_MS))
        ends[partition] += 1
    for length in [*crashes, len(records)]:
        archive = sink(directory, rows)
        places = nexts(archive.positions(range(3), log_now()))
        left = [one for one in records if one.offset >= (places[one.partition] or 0)]
        archive.write(left[:length])  # and then it is gone, with what it held back
    archive = sink(directory, rows)
    places = nexts(archive.positions(range(3), log_now()))
    archive.write([one for one in records if one.offset >= (places[one.partition] or 0)])
    archive.flush()
    stored = pl.concat([pl.read_parquet(path) for path in directory.rglob("*.parquet")])
    assert sorted(stored.select("partition", "offset").rows()) == sorted((r.partition, r.offset) for r in records)


def test_what_is_read_again_after_a_failure_is_there_once(tmp_path: Path) -> None:
    archive = sink(tmp_path)
    archive.write([record(0), record(1)])
    archive.forget()
    archive.write([record(0), record(1), record(2)])
    assert archive.flush() == {0: 3}
    (name,) = names(tmp_path)
    assert pl.read_parquet(tmp_path / name)["offset"].to_list() == [0, 1, 2]


def test_files_are_closed_once_they_are_written(tmp_path: Path) -> None:
    archive = sink(tmp_path, rows=1)
    archive.write([record(0), record(1)])
    before = len(os.listdir("/dev/fd"))
    archive.write([record(offset) for offset in range(2, 40)])
    archive.flush()
    assert len(names(tmp_path)) == 40
    # Room for what else runs in this process.
    assert len(os.listdir("/dev/fd")) < before + 20


texts = st.sampled_from(["", "a", "ü"])


@given(
    st.fixed_dictionaries(dict.fromkeys(("surface", "device", "country", "session_id", "request_id"), texts)),
    st.integers(0, 200),
    st.none() | st.integers(1, 10**6),
    st.sampled_from([-1000, 0, 1000]),
)
def test_a_row_is_what_the_event_says_and_null_where_it_says_nothing(
    names: dict[str, str], position: int, dwell_ms: int | None, ahead_ms: int
) -> None:
    kind = EventType.PURCHASE if dwell_ms is None else EventType.DWELL
    event = make_event("u", "i", kind, "one", NOW_MS + ahead_ms)
    for name, value in names.items():
        setattr(event, name, value)
    event.position = position
    if dwell_ms is not None:
        event.dwell_ms = dwell_ms
    row = dict(zip(ARCHIVE_SCHEMA, to_row(3, 77, decode(encode(event, NOW_MS))), strict=True))
    assert row == {
        "user_id": "u",
        "item_id": "i",
        "event_id": "one",
        "event_type": kind.name.lower(),
        "timestamp_ms": NOW_MS + min(ahead_ms, 0),
        "received_ms": NOW_MS,
        "value": 9.5 if kind == EventType.PURCHASE else None,
        "dwell_ms": dwell_ms,
        "position": position or None,
        "partition": 3,
        "offset": 77,
        **{name: value or None for name, value in names.items()},
    }


def test_a_range_that_another_processor_has_written_is_not_written_again(tmp_path: Path) -> None:
    slow, fast = sink(tmp_path), sink(tmp_path)
    slow.write([record(0), record(1)])
    fast.write([record(0), record(1), record(2)])
    fast.flush()
    with pytest.raises(PositionLost):
        slow.flush()
    assert nexts(slow.positions([0], log_now())) == {0: 3}


def test_a_directory_that_cannot_be_written_is_said_so_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "2025-11-24").write_text("in the way")
    archive = sink(tmp_path)
    archive.write([record(0)])
    with pytest.raises(DependencyUnavailable):
        archive.flush()
    (tmp_path / "2025-11-24").unlink()
    assert archive.flush() == {0: 1}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"]})
    items.write_parquet(tmp_path / "items.parquet")
    archive = sink(tmp_path / "events")
    archive.write(
        [
            record(0, item="a", user="u1", kind=EventType.PURCHASE),
            record(1, item="never heard of"),
            record(2, item="b", user="u2", kind=EventType.DWELL, time_ms=NOW_MS + 60_000),
            LogRecord(0, 3, record(0, item="a", user="u1", kind=EventType.PURCHASE).event),  # sent twice
            record(4, item="b", time_ms=7),
        ]
    )
    archive.flush()
    return tmp_path


def test_training_reads_the_archive_as_it_is(data: Path) -> None:
    interactions = read_tables(data).interactions
    assert interactions.select("user_id", "item_id", "event_type", "timestamp_ms", "value", "surface").rows() == [
        ("u1", "a", "purchase", NOW_MS - 5, 9.5, "home"),
        ("u2", "b", "dwell", NOW_MS, None, "home"),
    ]
    assert load_dataset(data).user_count == 2


def test_the_archive_continues_the_table(data: Path) -> None:
    (data / "interactions.csv").write_text(f"user_id,item_id,event_type,timestamp_ms\nu0,b,view,{NOW_MS - 9}\n")
    assert read_tables(data).interactions["user_id"].to_list() == ["u0", "u1", "u2"]
