"""Counts of users: whatever one user does with one item, in every window it adds at most one to what is popular.

In a window of lifetime L a user counts exp(-age / L), the age being that of their latest event on the item; in the
count of all they count 1. So a second event adds only what was left to be had: nothing at once, nearly one after
several lifetimes. The stream processor (engine.kernels.counted_users), the bundle's counts and its lists obey this
rule.
"""

import numpy as np
import numpy.typing as npt

from engine.types import Int64Array

# Between a user's first event on an item and the one before it, which there is not.
NEVER_MS = np.iinfo(np.int64).max


def first_of_each(users: npt.NDArray[np.integer], rows: npt.NDArray[np.integer]) -> Int64Array:
    """Positions, ascending, of the first event of each pair of user and item: int64 (pairs,). Cost: O(n log n)."""
    if not len(users):
        return np.empty(0, np.int64)
    pairs = users.astype(np.int64) * (int(rows.max()) + 1) + rows
    return np.sort(np.unique(pairs, return_index=True)[1])


def since_latest_ms(
    users: npt.NDArray[np.integer], rows: npt.NDArray[np.integer], timestamps_ms: Int64Array
) -> Int64Array:
    """int64 (n,): how long before each event its user's latest other one on its item was, NEVER_MS where none was.

    Args:
        users, rows: int (n,). timestamps_ms: int64 (n,), in any order; of ties the first is the earlier one.

    Cost: O(n log n).
    """
    order = np.lexsort((np.arange(len(users)), timestamps_ms, rows, users))
    since = np.full(len(users), NEVER_MS)
    same = (np.diff(users[order]) == 0) & (np.diff(rows[order]) == 0)
    since[order[1:][same]] = np.diff(timestamps_ms[order])[same]
    return since
