"""DuckDB over the archive: the steps that every question begins with. The SQL is in sql/, a file a step."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files as package_files
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import polars as pl

from engine.errors import DataError, InvalidRequest
from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.report_query import DAY_MS, HOUR_MS, Clock, ReportQuery
from engine.features.returns import pair_returns

# After every time that an archive can hold: 2101.
_END_MS = 4_133_980_800_000
# Purchases come back for so long after the last of them that counts.
_RETURNS_MS = 90 * DAY_MS
# What is read of an event, for an archive that holds none.
_EVENT_COLUMNS = {
    "user_id": pl.String, "item_id": pl.String, "event_type": pl.String, "timestamp_ms": pl.Int64, "value": pl.Float64,
    "surface": pl.String, "event_id": pl.String, "request_id": pl.String, "partition": pl.Int32, "offset": pl.Int64,
}  # fmt: skip
_SQL = package_files("engine.experiments.analysis") / "sql"


@contextmanager
def opened(
    archive: Archive, question: ReportQuery, threads: int | None = None, memory_mb: int | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own, in memory, in which `raw_exposures` names the period's exposures, `raw_failures` the rest.

    Args:
        threads: for DuckDB; None: one a core. memory_mb: past it, it uses the disk; None: most of the machine's.

    Raises:
        InvalidRequest: the archive has no exposures of this period. DataError: it is not there or cannot be read, also
            when that shows inside the context.
    """
    # Directories are named by the server's clock.
    by_server = question.rules.clock is Clock.SERVER
    files = archive.exposure_files(*(question.from_ms, question.to_ms) if by_server else (None, None))
    if not files:
        raise InvalidRequest("experiment", "there are no exposures in the archive for this period")
    limits: dict[str, str | bool | int | float | list[str]] = {}
    if threads is not None:
        limits["threads"] = threads
    if memory_mb is not None:
        limits["memory_limit"] = f"{memory_mb}MiB"
    with TemporaryDirectory(prefix="engine-report-") as spill:
        yield from _connected(archive, files, question.rules.clock, limits | {"temp_directory": spill})


def _connected(
    archive: Archive, files: list[str], clock: Clock, limits: dict[str, str | bool | int | float | list[str]]
) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(config=limits)
    try:
        exposures, failures = read_exposures(connection, files, clock)
        exposures.create_view("raw_exposures")
        failures.create_view("raw_failures")
        yield connection
    except duckdb.Error as error:
        # Of a long text of the library the first line says what is wrong.
        raise DataError(f"{archive.exposures}: cannot be read: {str(error).splitlines()[0]}") from error
    finally:
        connection.close()


def read_exposures(
    connection: duckdb.DuckDBPyConnection, files: list[str], clock: Clock
) -> tuple[duckdb.DuckDBPyRelation, duckdb.DuckDBPyRelation]:
    """What was served, and the requests that failed, with served_ms by this clock.

    Archives from before either was written have neither `time_ms` nor `error`: all of it was served, and all by the
    server's clock.
    """
    logged = connection.read_parquet(files, union_by_name=True)
    if clock is Clock.REQUEST and "time_ms" in logged.columns:
        logged = logged.project("* REPLACE (coalesce(time_ms, served_ms) AS served_ms)")
    if "error" not in logged.columns:
        return logged, logged.filter("false")
    return logged.filter("error IS NULL"), logged.filter("error IS NOT NULL")


def tell_units(connection: duckdb.DuckDBPyConnection, question: ReportQuery) -> None:
    """Make the tables `everybody`, `units` and `shown`: who was exposed, who of them counts, and to what."""
    run_step(
        connection,
        "exposures",
        experiment=question.experiment,
        surface=question.surface,
        from_ms=question.from_ms or 0,
        to_ms=question.to_ms or _END_MS,
    )
    run_step(connection, "units", bot_hourly_requests=question.rules.bot_hourly_requests)


def tell_outcomes(connection: duckdb.DuckDBPyConnection, archive: Archive, question: ReportQuery) -> tuple[int, int]:
    """Make the tables `events`, `credited`, `sessions` and `placed` of those in `shown`, who must not be nobody.

    Returns:
        The times of the first and the last exposure, in milliseconds since 1970.
    """
    first_ms, last_ms = one_row(connection, "SELECT min(served_ms), max(served_ms) FROM shown")
    # Clocks of clients can be a little slow.
    begin_ms, end_ms = first_ms - HOUR_MS, last_ms + question.rules.window_ms + 1
    open_events(connection, archive.event_files(begin_ms, end_ms))
    run_step(connection, "events", begin_ms=begin_ms, end_ms=end_ms)
    _take_back(connection, archive, begin_ms, end_ms + _RETURNS_MS)
    run_step(connection, "outcomes", window_ms=question.rules.window_ms, session_gap_ms=question.rules.session_gap_ms)
    return first_ms, last_ms


def _take_back(connection: duckdb.DuckDBPyConnection, archive: Archive, begin_ms: int, end_ms: int) -> None:
    """Make the table `returned`, and take what was given back off the money of the purchases that it names.

    A return takes back what it takes back in training (engine.features.returns). What users send back is no act of a
    session of theirs: no return stays in `events`.
    """
    open_events(connection, archive.event_files(begin_ms, end_ms))
    trades = run_step(connection, "returns", begin_ms=begin_ms, end_ms=end_ms)
    is_return = trades["event"].is_null()
    bought, sent_back = pair_returns(
        trades["user"].to_numpy(), trades["item"].to_numpy(), (~is_return).to_numpy(), is_return.to_numpy()
    )
    pairs = pl.DataFrame({"event": trades["event"][bought], "money": trades["money"][sent_back]})
    connection.register("pairs", pairs)
    connection.execute("CREATE TEMP TABLE returned AS FROM pairs")
    connection.execute(
        "UPDATE events SET money = events.money - pairs.money FROM pairs WHERE events.event = pairs.event"
    )
    connection.execute("DELETE FROM events WHERE event_type = 'return'")
    connection.unregister("pairs")


def open_events(connection: duckdb.DuckDBPyConnection, files: list[str]) -> None:
    """Have `raw_events` name what these files hold."""
    if files:
        connection.read_parquet(files, union_by_name=True).create_view("raw_events", replace=True)
    else:
        connection.register("no_events", pl.DataFrame(schema=_EVENT_COLUMNS))
        connection.table("no_events").create_view("raw_events", replace=True)


def run_step(connection: duckdb.DuckDBPyConnection, step: str, **parameters: Any) -> pl.DataFrame:
    """Run a step's statements, each with the parameters that it names; what the last one answers, if it is a query."""
    answer = pl.DataFrame()
    for statement in connection.extract_statements((_SQL / f"{step}.sql").read_text()):
        own = {name: parameters[name] for name in statement.named_parameters}
        if statement.type == duckdb.StatementType.SELECT:
            answer = connection.sql(statement.query, params=own).pl()
        else:
            connection.execute(statement, own or None).fetchall()
    return answer


def one_row(connection: duckdb.DuckDBPyConnection, query: str, **parameters: Any) -> tuple[Any, ...]:
    """The one row that a query answers with."""
    [row] = connection.sql(query, params=parameters).fetchall()
    return tuple(row)
