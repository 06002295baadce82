"""Which purchases were taken back: one rule for training, publishing and experiment reports."""

import numpy as np
import numpy.typing as npt

from engine.types import BoolArray, Int64Array


def taken_back(
    users: npt.NDArray[np.integer], rows: npt.NDArray[np.integer], purchases: BoolArray, returns: BoolArray
) -> BoolArray:
    """bool (n,): the purchases that a return takes back; see pair_returns."""
    back = np.zeros(len(users), np.bool_)
    back[pair_returns(users, rows, purchases, returns)[0]] = True
    return back


def pair_returns(
    users: npt.NDArray[np.integer], rows: npt.NDArray[np.integer], purchases: BoolArray, returns: BoolArray
) -> tuple[Int64Array, Int64Array]:
    """The purchase that each return takes back: of its user and item the latest before it that is not yet
    taken back.

    Args:
        users, rows: int (n,), who and what, of events in time order.
        purchases, returns: bool (n,), which events are one or the other.

    Returns:
        Positions of purchases and of their returns, int64 (pairs,) each. A return with nothing to take back has none.

    Cost: O(n), and a step in Python for each event of a pair of user and item that has a return.
    """
    nothing = np.empty(0, np.int64)
    if not returns.any():
        return nothing, nothing
    pairs = users.astype(np.int64) * (int(rows.max()) + 1) + rows
    concerned = np.flatnonzero((purchases | returns) & np.isin(pairs, pairs[returns]))
    standing: dict[int, list[int]] = {}
    bought, sent_back = [], []
    for place, pair, is_return in zip(
        concerned.tolist(), pairs[concerned].tolist(), returns[concerned].tolist(), strict=True
    ):
        held = standing.setdefault(pair, [])
        if not is_return:
            held.append(place)
        elif held:
            bought.append(held.pop())
            sent_back.append(place)
    return np.array(bought, np.int64), np.array(sent_back, np.int64)
