"""Pay for compilation and first calls before the first request does."""

import time

import numpy as np
import numpy.typing as npt

from engine.kernels import (
    cells,
    dpp,
    groups,
    membership,
    mmr,
    popularity,
    prefetch,
    scan,
    seen_items,
    seen_policy,
    session,
    topk,
    unit_rows,
)
from engine.kernels.arrays import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array, UInt8Array
from engine.kernels.constraints import SlateConstraints


def warm_up() -> float:
    """Call every kernel once on each kind of array that serving passes; returns the seconds that it took.

    Importing the kernels has compiled them, or loaded them from numba's cache; the first call still resolves types.
    """
    started = time.perf_counter()
    for frozen in (False, True):
        _call_all(frozen)
    return time.perf_counter() - started


def _call_all(frozen: bool) -> None:
    def made(values: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
        array = np.array(values, dtype=dtype)
        array.flags.writeable = not frozen
        return array

    table: Float32Array = made([[1, 0, 0], [0, 1, 0]], np.float32)  # type: ignore[assignment]
    floats: Float32Array = made([1, 2], np.float32)  # type: ignore[assignment]
    rows: Int64Array = made([0, 1], np.int64)  # type: ignore[assignment]
    types: UInt8Array = made([0, 1], np.uint8)  # type: ignore[assignment]
    bitmap: UInt8Array = made([3], np.uint8)  # type: ignore[assignment]
    order: Int32Array = made([1, 0], np.int32)  # type: ignore[assignment]

    for columns in (table, table[:, :2]):
        unit_rows.gather_unit_rows(columns, rows, 2)
        groups.group_means(columns, rows, rows, 2)
        vector, evidence = session.session_vector(columns, 2, rows, types, rows, 1, 1.0, floats)
        session.blended_session(floats, 0, columns, rows, types, rows, 1, 1.0, floats, 1.0, 1.0, 1.0, floats, 1.0)
    session.blend(floats, vector, evidence, 1.0)
    units = unit_rows.gather_unit_rows(table, rows, 2)
    shares: Float64Array = made([0.5, 1], np.float64)  # type: ignore[assignment]
    constraints = SlateConstraints(np.stack([order, order]), rows, rows + 1, np.eye(2, dtype=np.bool_), shares, rows)
    for select in (mmr.mmr_slate, dpp.dpp_slate):
        select(floats, units, 0.5, 2)
        select(floats, table[:, :2], 0.5, 2, 0.9, constraints, rows)
    seen = seen_items.SeenColumns(rows, types, rows, floats)
    seen_items.unpack_seen(seen_items.pack_seen(seen))
    judged = seen_policy.judge(seen, 1, np.ones(256, np.int64), np.ones(256, np.int64), 1.0, 1.0)
    seen_policy.resolve_rows(judged, rows[: len(judged.places)], bitmap.copy())
    seen_policy.within_limit(rows, rows, 1)
    seen_policy.demotions(rows, rows, 0.5, rows, floats)
    membership.rows_of_keys(rows, rows, rows)
    membership.test_rows(bitmap, rows)
    membership.count_rows(bitmap, 2)
    membership.clear_rows(bitmap.copy(), rows)
    membership.assign_rows(bitmap.copy(), rows, membership.test_rows(bitmap, rows))
    membership.multiply_members(np.ones(2), bitmap, rows, 2.0)
    membership.codes_of_rows(order, rows)
    membership.codes_of_rows(order, rows, bitmap)
    changed = np.zeros(2, np.bool_)
    popularity.count_moves(rows.copy(), np.ones((2, 2)), changed, 2, rows, rows, rows, shares)
    popularity.counts_at(rows, np.ones((2, 2)), 1, shares)
    topk.top_k(floats, 1)
    prefetch.prefetch_rows(table, rows)
    scan.scan_eligible(units, floats, bitmap)
    marks: BoolArray = made([True, False], np.bool_)  # type: ignore[assignment]
    cells.expected_above(floats, floats, rows, marks, 0.5, 0.5)
    cells.inner_products(units, floats)
    cells.scan_cells(bitmap, rows[:1], rows[:1], rows[:1], rows[:1], floats[:1], floats, bitmap)
    scan.scan_above(unit_rows.gather_unit_rows(table, rows, 2), floats, bitmap, 0.0)
    topk.merge_top(rows, floats, rows, floats, 3)
    topk.first_eligible(order, bitmap, 1, rows)
    topk.first_eligible(rows, bitmap, 1)
