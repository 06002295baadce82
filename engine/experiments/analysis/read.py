"""The archive, counted: who took part, and what each did by surface and day. The SQL is in sql/, a file a step."""

from collections.abc import Mapping
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

from engine.errors import DataError, InvalidRequest
from engine.experiments.analysis.counted import ALL_SURFACES, Counted, Excluded
from engine.experiments.analysis.files import event_files, exposure_files
from engine.experiments.analysis.metrics import BEFORE, TOTALS
from engine.experiments.analysis.question import DAY_MS, HOUR_MS, Question
from engine.experiments.analysis.statistics import Float64Array, Int64Array

# After every time that an archive can hold: 2101.
_END_MS = 4_133_980_800_000
# What is read of an event, for an archive that holds none.
_EVENT_COLUMNS = {
    "user_id": pl.String, "item_id": pl.String, "event_type": pl.String, "timestamp_ms": pl.Int64, "value": pl.Float64,
    "surface": pl.String, "event_id": pl.String, "request_id": pl.String, "partition": pl.Int32, "offset": pl.Int64,
}  # fmt: skip
_SQL = package_files("engine.experiments.analysis") / "sql"


def count(
    archive: Path, question: Question, categories: Mapping[str, str] | None = None, threads: int | None = None
) -> Counted:
    """Read what a question is about.

    Args:
        archive: holds exposures/ and the events.
        categories: of items, where they are known: what the diversity of slates is told by.
        threads: for DuckDB; None: one a core.

    Raises:
        InvalidRequest: nobody was exposed to this experiment, on this surface, in this period.
        DataError: the archive is not there or cannot be read.

    Cost: one scan of the period's files, and as many rows in memory as exposures and events of those who took part.
    """
    exposures = exposure_files(archive, question.from_ms, question.to_ms)
    if not exposures:
        raise InvalidRequest("experiment", "there are no exposures in the archive for this period")
    connection = duckdb.connect(config={"threads": threads} if threads else {})
    try:
        connection.read_parquet(exposures, union_by_name=True).create_view("raw_exposures")
        return _count(connection, archive, question, categories or {})
    except duckdb.Error as error:
        # Of a long text of the library the first line says what is wrong.
        raise DataError(f"{archive}: cannot be read: {str(error).splitlines()[0]}") from error
    finally:
        connection.close()


def _count(
    connection: duckdb.DuckDBPyConnection, archive: Path, question: Question, categories: Mapping[str, str]
) -> Counted:
    rules = question.rules
    _run(
        connection,
        "exposures",
        experiment=question.experiment,
        surface=question.surface,
        from_ms=question.from_ms or 0,
        to_ms=question.to_ms or _END_MS,
    )
    _run(connection, "units", bot_hourly_requests=rules.bot_hourly_requests)
    excluded = _excluded(connection)
    first_ms, last_ms = _row(connection, "SELECT min(served_ms), max(served_ms) FROM shown")
    if first_ms is None:
        raise InvalidRequest("experiment", _why_nobody(question, excluded))
    # Clocks of clients can be a little slow.
    begin_ms, end_ms = first_ms - HOUR_MS, last_ms + rules.window_ms + 1
    _open_events(connection, event_files(archive, begin_ms, end_ms))
    _run(connection, "events", begin_ms=begin_ms, end_ms=end_ms)
    _run(connection, "outcomes", window_ms=rules.window_ms, session_gap_ms=rules.session_gap_ms)
    totals = _run(connection, "totals")
    units = connection.sql("SELECT * FROM units ORDER BY unit").pl()
    variants = tuple(sorted(units["variant"].unique()))
    surfaces = sorted(name for name in totals["surface"].unique() if name)
    if len(surfaces) > 1:
        surfaces.append(ALL_SURFACES)
    else:
        totals = totals.filter(pl.col("surface") != "")
    events_end_ms = _row(connection, "SELECT coalesce(max(timestamp_ms), 0) FROM events")[0]
    guardrails = _guardrails(connection, "" if len(surfaces) > 1 else surfaces[0], categories)
    return Counted(
        variants=variants,
        surfaces=tuple(surfaces),
        variant=_codes(units["variant"], variants),
        interaction_count=units["interaction_count"].fill_null(0).to_numpy().astype(np.int64),
        device=units["device"].to_list(),
        country=units["country"].to_list(),
        before=_before(connection, archive, question, units.height),
        unit=totals["unit"].to_numpy().astype(np.int64),
        surface=_codes(totals["surface"].replace("", ALL_SURFACES), surfaces),
        day=totals["day"].to_numpy().astype(np.int64),
        values=np.stack([totals[name].cast(pl.Float64).to_numpy() for name in TOTALS], axis=1),
        first_ms=first_ms,
        last_ms=last_ms,
        events_end_ms=events_end_ms,
        excluded=excluded,
        guardrails=guardrails,
    )


def _before(
    connection: duckdb.DuckDBPyConnection, archive: Path, question: Question, units: int
) -> Float64Array | None:
    """float64 (units, len(BEFORE)) of the days before anybody saw a variant, wherever the question's period begins."""
    days = question.rules.before_days
    if days == 0 or not question.experiment:
        return None
    every = exposure_files(archive, None, question.to_ms)
    connection.read_parquet(every, union_by_name=True).create_view("all_exposures")
    [start_ms] = _row(
        connection,
        "SELECT min(served_ms) FROM all_exposures"
        " WHERE len(list_filter(experiments, lambda e: e.experiment = $experiment)) > 0",
        experiment=question.experiment,
    )
    files = event_files(archive, start_ms - days * DAY_MS, start_ms)
    if not files:
        return None
    _open_events(connection, files)
    found = _run(
        connection,
        "before",
        begin_ms=start_ms - days * DAY_MS,
        end_ms=start_ms,
        session_gap_ms=question.rules.session_gap_ms,
    )
    if found.height == 0:
        return None
    before = np.zeros((units, len(BEFORE)))
    before[found["unit"].to_numpy()] = np.stack([found[name].cast(pl.Float64).to_numpy() for name in BEFORE], axis=1)
    return before


def _excluded(connection: duckdb.DuckDBPyConnection) -> Excluded:
    testers, crossovers, bots = _row(
        connection,
        "SELECT count(*) FILTER (tester), count(*) FILTER (crossover AND NOT tester),"
        " count(*) FILTER (bot AND NOT tester AND NOT crossover) FROM everybody",
    )
    [repeats] = _row(connection, "SELECT coalesce(sum(copies - 1), 0)::BIGINT FROM served")
    return Excluded(testers, crossovers, bots, repeats)


def _why_nobody(question: Question, excluded: Excluded) -> str:
    left_out = excluded.testers + excluded.crossovers + excluded.bots
    if left_out:
        return f"all {left_out} who saw it were testers, bots, or saw two variants"
    where = f" on the surface {question.surface!r}" if question.surface else ""
    when = " in this period" if question.from_ms is not None or question.to_ms is not None else ""
    return f"the archive has no exposures of {question.experiment!r}{where}{when}"


def _guardrails(
    connection: duckdb.DuckDBPyConnection, surface: str, categories: Mapping[str, str]
) -> tuple[Mapping[str, Any], ...]:
    frame = pl.DataFrame(
        {"item_id": list(categories), "category": list(categories.values())},
        schema={"item_id": pl.String, "category": pl.String},
    )
    connection.register("categories", frame)
    lines = _run(connection, "guardrails", surface=surface).to_dicts()
    return tuple(line | {"surface": line["surface"] or ALL_SURFACES} for line in lines)


def _open_events(connection: duckdb.DuckDBPyConnection, files: list[str]) -> None:
    """Have `raw_events` name what these files hold."""
    if files:
        connection.read_parquet(files, union_by_name=True).create_view("raw_events", replace=True)
    else:
        connection.register("no_events", pl.DataFrame(schema=_EVENT_COLUMNS))
        connection.table("no_events").create_view("raw_events", replace=True)


def _run(connection: duckdb.DuckDBPyConnection, step: str, **parameters: Any) -> pl.DataFrame:
    """Run a step's statements, each with the parameters that it names; what the last one answers, if it is a query."""
    answer = pl.DataFrame()
    for statement in connection.extract_statements((_SQL / f"{step}.sql").read_text()):
        own = {name: parameters[name] for name in statement.named_parameters}
        if statement.type == duckdb.StatementType.SELECT:
            answer = connection.sql(statement.query, params=own).pl()
        else:
            connection.execute(statement, own or None).fetchall()
    return answer


def _row(connection: duckdb.DuckDBPyConnection, query: str, **parameters: Any) -> tuple[Any, ...]:
    [row] = connection.sql(query, params=parameters).fetchall()
    return tuple(row)


def _codes(names: pl.Series, known: "tuple[str, ...] | list[str]") -> Int64Array:
    """int64, the place of each name among the known ones."""
    places = {name: place for place, name in enumerate(known)}
    return names.replace_strict(places, return_dtype=pl.Int64).to_numpy().astype(np.int64)
