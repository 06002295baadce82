"""The archive, counted: who took part, and what each did by surface and day."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

from engine.bundle.items import read_items
from engine.bundle.store import bundle_at
from engine.errors import InvalidRequest
from engine.experiments.analysis.database import (
    one_row,
    open_events,
    opened,
    read_exposures,
    run_step,
    tell_outcomes,
    tell_units,
)
from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.metrics import ALL_SURFACES, BEFORE, TOTALS, Excluded, ExperimentData
from engine.experiments.analysis.report_query import DAY_MS, Clock, ReportQuery
from engine.types import Float64Array, Int64Array


def count(
    archive: Archive,
    question: ReportQuery,
    categories: Mapping[str, str] | None = None,
    threads: int | None = None,
    memory_mb: int | None = None,
) -> ExperimentData:
    """Read what a question is about.

    Args:
        categories: of items, where they are known: what the diversity of slates is told by.
        threads: for DuckDB; None: one a core. memory_mb: what it holds in memory, the rest goes to disk; None: most of
            the machine's.

    Raises:
        InvalidRequest: nobody was exposed to this experiment, on this surface, in this period.
        DataError: the archive is not there or cannot be read.

    Cost: one scan of the period's files, and all slates and events of those who took part in memory, as far as it goes.
    """
    with opened(archive, question, threads, memory_mb) as connection:
        return _count(connection, archive, question, categories or {})


def _count(
    connection: duckdb.DuckDBPyConnection, archive: Archive, question: ReportQuery, categories: Mapping[str, str]
) -> ExperimentData:
    tell_units(connection, question)
    excluded = _excluded(connection)
    if not one_row(connection, "SELECT count(*) FROM shown")[0]:
        raise InvalidRequest("experiment", _why_nobody(question, excluded))
    first_ms, last_ms = tell_outcomes(connection, archive, question)
    totals = run_step(connection, "totals")
    units = connection.sql("SELECT * FROM units ORDER BY unit").pl()
    variants = tuple(sorted(units["variant"].unique()))
    surfaces = sorted(name for name in totals["surface"].unique() if name)
    if len(surfaces) > 1:
        surfaces.append(ALL_SURFACES)
    else:
        totals = totals.filter(pl.col("surface") != "")
    events_end_ms = one_row(connection, "SELECT coalesce(max(timestamp_ms), 0) FROM events")[0]
    guardrails = _guardrails(connection, "" if len(surfaces) > 1 else surfaces[0], categories)
    return ExperimentData(
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
    connection: duckdb.DuckDBPyConnection, archive: Archive, question: ReportQuery, units: int
) -> Float64Array | None:
    """float64 (units, len(BEFORE)) of the days before anybody saw a variant, wherever the question's period begins."""
    days = question.rules.before_days
    if days == 0 or not question.experiment:
        return None
    until_ms = question.to_ms if question.rules.clock is Clock.SERVER else None
    every, _ = read_exposures(connection, archive.exposure_files(None, until_ms), question.rules.clock)
    every.create_view("all_exposures")
    [start_ms] = one_row(
        connection,
        "SELECT min(served_ms) FROM all_exposures"
        " WHERE len(list_filter(experiments, lambda e: e.experiment = $experiment)) > 0",
        experiment=question.experiment,
    )
    files = archive.event_files(start_ms - days * DAY_MS, start_ms)
    if not files:
        return None
    open_events(connection, files)
    found = run_step(
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
    testers, crossovers, bots = one_row(
        connection,
        "SELECT count(*) FILTER (tester), count(*) FILTER (crossover AND NOT tester),"
        " count(*) FILTER (bot AND NOT tester AND NOT crossover) FROM everybody",
    )
    [repeats] = one_row(connection, "SELECT repeats FROM repeated")
    return Excluded(testers, crossovers, bots, repeats)


def _why_nobody(question: ReportQuery, excluded: Excluded) -> str:
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
    lines = run_step(connection, "guardrails", surface=surface).to_dicts()
    return tuple(line | {"surface": line["surface"] or ALL_SURFACES} for line in lines)


def _codes(names: pl.Series, known: "tuple[str, ...] | list[str]") -> Int64Array:
    """int64, the place of each name among the known ones."""
    places = {name: place for place, name in enumerate(known)}
    return names.replace_strict(places, return_dtype=pl.Int64).to_numpy().astype(np.int64)


def bundle_categories(directory: Path) -> dict[str, str]:
    """Of the items that have one, by item id.

    Args:
        directory: of a bundle, or of several with a current one.

    Raises:
        BundleError: there is none, or it cannot be read.
    """
    known = read_items(bundle_at(directory)).frame().select("item_id", "category").drop_nulls()
    return dict(zip(known["item_id"].to_list(), known["category"].to_list(), strict=True))
