"""Off-policy estimates from the archive and a table of what another policy would have shown."""

from enum import StrEnum
from pathlib import Path

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from engine.errors import DataError, InvalidRequest
from engine.experiments.analysis.database import one_row, opened, run_step, tell_outcomes, tell_units
from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.ope import LoggedItems, OffPolicy, TargetRequests, estimate_off_policy
from engine.experiments.analysis.question import Question


class Reward(StrEnum):
    """What an item earns: 1 for a click, or the money of the purchases that belong to it."""

    CLICKS = "clicks"
    REVENUE = "revenue"


_REQUIRED = {"request_id": pl.String, "item_id": pl.String, "probability": pl.Float64}
_PREDICTED = "predicted_reward"
_SURFACE = "surface"


def read_target(path: Path) -> pl.DataFrame:
    """What a target policy would do: request_id, surface, item_id, probability, predicted_reward, one row an item.

    A row for each item that the policy would show in an exposure with some probability, also of items that were not
    shown there; an item without a row would not be shown. `predicted_reward` may be absent: a model's expectation of
    what the item earns there, for the doubly robust estimate. `surface` may be absent, too, where no request was made
    for two surfaces; it is null then.

    Args:
        path: a .parquet or .csv file.

    Raises:
        DataError: it cannot be read, or a column is missing or of the wrong kind; file and column are named.
    """
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (PolarsError, OSError) as error:
        raise DataError(f"{path}: {str(error).splitlines()[0]}") from None
    if _PREDICTED not in frame.columns:
        frame = frame.with_columns(pl.lit(0.0).alias(_PREDICTED))
    if _SURFACE in frame.columns:
        named = {_SURFACE: pl.String}
    else:
        named = {}
        frame = frame.with_columns(pl.lit(None, pl.String).alias(_SURFACE))
    columns = _REQUIRED | named | {_PREDICTED: pl.Float64}
    for name, kind in columns.items():
        if name not in frame.columns:
            raise DataError(f"{path}: the column {name} is missing")
        try:
            frame = frame.with_columns(pl.col(name).cast(kind))
        except PolarsError:
            raise DataError(f"{path}: {name} cannot be read as {'text' if kind == pl.String else 'numbers'}") from None
        if frame[name].null_count() or (kind == pl.Float64 and not frame[name].is_finite().all()):
            raise DataError(f"{path}: {name} has values that are absent or not finite")
    if frame.select("request_id", _SURFACE, "item_id").is_duplicated().any():
        raise DataError(f"{path}: an item stands twice in one request")
    return frame.select(*_REQUIRED, _SURFACE, _PREDICTED)


def off_policy(archive: Archive, question: Question, variant: str, target: pl.DataFrame, reward: Reward) -> OffPolicy:
    """Estimate what the target would have earned per exposure on the traffic of one variant.

    Args:
        target: as read_target has it. Exposures of which it says nothing are left out.

    Raises:
        InvalidRequest: nobody was exposed to the variant, the target says nothing of its exposures, or it names no
            surfaces and a request was made for several.
        DataError: the archive cannot be read.
    """
    with opened(archive, question) as connection:
        tell_units(connection, question)
        [exposures] = one_row(connection, "SELECT count(*) FROM shown WHERE variant = $variant", variant=variant)
        if not exposures:
            raise InvalidRequest("variant", f"the archive has no exposures of {question.experiment!r} to {variant!r}")
        connection.register("target", target)
        [several] = one_row(
            connection,
            "SELECT count(*) FROM (SELECT request_id FROM shown WHERE request_id IN "
            "(SELECT request_id FROM target WHERE surface IS NULL) GROUP BY request_id HAVING count(*) > 1)",
        )
        if several:
            raise InvalidRequest(
                "target", f"{several:,} of its requests were made for several surfaces: it needs a column `surface`"
            )
        tell_outcomes(connection, archive, question)
        items = run_step(connection, "off_policy", variant=variant, reward=reward.value)
        requests = connection.table("target_requests").pl().sort("request")
    if requests.height == 0:
        raise InvalidRequest("target", f"says nothing of the {exposures:,} exposures to {variant!r}")
    return estimate_off_policy(
        LoggedItems(
            unit=items["unit"].to_numpy().astype(np.int64),
            propensity=items["propensity"].to_numpy().astype(np.float64),
            reward=items["reward"].to_numpy().astype(np.float64),
            target=items["target"].to_numpy().astype(np.float64),
            predicted=items["predicted"].to_numpy().astype(np.float64),
        ),
        TargetRequests(
            unit=requests["unit"].to_numpy().astype(np.int64),
            expected=requests["expected"].to_numpy().astype(np.float64),
            shown=requests["shown"].to_numpy().astype(np.float64),
        ),
        question.rules.alpha,
    )
