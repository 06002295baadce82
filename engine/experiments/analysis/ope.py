"""What another policy would have earned on this traffic, without serving it: off-policy estimates.

A logged exposure shows each of its items with a known chance, its propensity. A target policy shows the same item to
the same user with another chance. Weighing what an item earned by the quotient of the two makes the log look as if
the target had chosen. That holds where everything that the target would show had some chance of being shown.

An item is assumed to earn by itself, whatever is shown beside it (the item-position model of Li et al., "Offline
evaluation of ranking policies with click models", KDD 2018). A target that shows other things *around* an item is
beyond what such an estimate can say.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from engine.errors import DataError, InvalidRequest
from engine.experiments.analysis.compare import Bounds
from engine.experiments.analysis.database import one_row, opened, run_step, tell_outcomes, tell_units
from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.report_query import ReportQuery
from engine.experiments.analysis.statistics import Estimate, Moments, critical, ratio
from engine.types import Float64Array, Int64Array


@dataclass(frozen=True, slots=True)
class LoggedItems:
    """Items as they were shown: arrays of one length, one place an item of an exposure.

    unit: int64, the user, any numbers. propensity: float64, in (0, 1], the chance
    with which the log's policy showed the item. reward: float64, what it earned. target: float64, in [0, 1], the
    chance with which the target policy would have shown it. predicted: float64, what a model expected it to earn, 0
    without a model.
    """

    unit: Int64Array
    propensity: Float64Array
    reward: Float64Array
    target: Float64Array
    predicted: Float64Array


@dataclass(frozen=True, slots=True)
class TargetRequests:
    """Exposures, logged items or not: arrays of one length.

    unit: int64 (requests,). expected: float64, what the model expects the target to earn there, over all items that it
    would show, target chance times prediction; 0 without a model. shown: float64, how many items the target would
    show, the sum of its chances.
    """

    unit: Int64Array
    expected: Float64Array
    shown: Float64Array


@dataclass(frozen=True, slots=True)
class OffPolicy:
    """Estimates of the target's reward per exposure, and how much they rest on.

    logged: what the log's own policy earned. ips: unbiased, noisy. snips: weights made to sum to what they should,
    steadier, with a bias that vanishes. doubly_robust: a model corrected by the log, right when either the model or the
    propensities are; None without predictions.
    support: of what the target would show, the part that the log's weights account for; well below 1 says that the
    target shows what the log never could. effective_items: as many evenly weighted items would say as much.
    largest_weight: of one item.
    """

    requests: int
    logged: Bounds
    ips: Bounds
    snips: Bounds
    doubly_robust: Bounds | None
    support: float
    effective_items: float
    largest_weight: float


def estimate_off_policy(items: LoggedItems, requests: TargetRequests, alpha: float = 0.05) -> OffPolicy:
    """Estimate, with intervals of level 1 - alpha in which a user counts as one.

    Raises:
        InvalidRequest: nothing was logged, or a propensity or chance is out of range.

    Cost: O(items + requests).
    Sources: Horvitz & Thompson 1952 (ips); Swaminathan & Joachims, NeurIPS 2015 (snips); Dudik, Langford, Li, ICML
    2011 (doubly robust).
    """
    _check(items, requests)
    weight = items.target / items.propensity
    per_unit = _Sums(items, requests)
    count = per_unit.of_requests(np.ones(len(requests.unit)))
    earned = per_unit.of_items(items.reward)
    weighed = per_unit.of_items(weight * items.reward)
    weights = per_unit.of_items(weight)
    shown = float(requests.shown.mean())
    with_model = bool(np.any(items.predicted) or np.any(requests.expected))
    corrected = per_unit.of_requests(requests.expected) + per_unit.of_items(weight * (items.reward - items.predicted))
    return OffPolicy(
        requests=len(requests.unit),
        logged=_bounds(_per(earned, count), alpha),
        ips=_bounds(_per(weighed, count), alpha),
        snips=_bounds(_scaled(_per(weighed, weights), shown), alpha),
        doubly_robust=_bounds(_per(corrected, count), alpha) if with_model else None,
        support=float(weight.sum() / requests.shown.sum()) if requests.shown.sum() > 0 else 0.0,
        effective_items=float(weight.sum() ** 2 / np.square(weight).sum()) if weight.any() else 0.0,
        largest_weight=float(weight.max()),
    )


class _Sums:
    """Sums by user."""

    def __init__(self, items: LoggedItems, requests: TargetRequests) -> None:
        units = np.unique(requests.unit)
        self._count = len(units)
        self._of_items = np.searchsorted(units, items.unit)
        self._of_requests = np.searchsorted(units, requests.unit)

    def of_items(self, values: Float64Array) -> Float64Array:
        return np.bincount(self._of_items, values, self._count).astype(np.float64)

    def of_requests(self, values: Float64Array) -> Float64Array:
        return np.bincount(self._of_requests, values, self._count).astype(np.float64)


def _per(numerator: Float64Array, denominator: Float64Array) -> Estimate:
    return ratio(Moments.of(np.stack([numerator, denominator], axis=1)))


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    return Estimate(estimate.value * factor, estimate.variance * factor**2)


def _bounds(estimate: Estimate, alpha: float) -> Bounds:
    value, half_width = float(estimate.value), critical(alpha) * float(np.sqrt(estimate.variance))
    return Bounds(value, value - half_width, value + half_width)


def _check(items: LoggedItems, requests: TargetRequests) -> None:
    if len(items.unit) == 0 or len(requests.unit) == 0:
        raise InvalidRequest("target", "nothing that was logged is in it")
    if len(np.unique(requests.unit)) < 2:
        raise InvalidRequest("target", "has exposures of one user alone, which says nothing of users")
    if not np.isin(items.unit, requests.unit).all():
        raise InvalidRequest("target", "has items of users without an exposure")
    if not ((items.propensity > 0) & (items.propensity <= 1 + 1e-6)).all():
        raise InvalidRequest("propensities", "must be above 0 and at most 1")
    if not ((items.target >= 0) & (items.target <= 1 + 1e-6)).all():
        raise InvalidRequest("target", "its probabilities must be between 0 and 1")


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
        raise DataError(f"{path}: an item is listed twice in one request")
    return frame.select(*_REQUIRED, _SURFACE, _PREDICTED)


def off_policy(
    archive: Archive, question: ReportQuery, variant: str, target: pl.DataFrame, reward: Reward
) -> OffPolicy:
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
