"""How popular an item is, as of a moment: decayed counts of users over several lifetimes, and the count of them all.

Training asks for many (item, moment) pairs, serving for all items at one moment; both read the same timeline, so
that an example never sees an event at or after its own moment.
"""

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from engine.features.schema import ITEM_DYNAMIC, POPULARITY_WINDOWS_S
from engine.features.user_counts import NEVER_MS, since_latest_ms
from engine.types import Float32Array, Float64Array, Int64Array

_LIFETIMES_MS = np.array(list(POPULARITY_WINDOWS_S.values())) * 1000.0


@dataclass(frozen=True, slots=True)
class PopularityTimeline:
    """n events grouped by item, each item's in time order, with the running decayed count after each.

    offsets: int64 (items + 1,); item r's events are [offsets[r], offsets[r + 1]).
    timestamps_ms: int64 (n,). running: float32 (n, windows), the decayed counts of users just after each event.
    users: int64 (n,), how many users each event's item has had up to and with it.
    keys: int64 (n,), ascending: (item, time) folded into one number, what `at` searches in.
    """

    offsets: Int64Array
    timestamps_ms: Int64Array
    running: Float32Array
    users: Int64Array
    keys: Int64Array
    first_ms: int
    span_ms: int

    @staticmethod
    def build(
        users: npt.NDArray[np.integer], rows: npt.NDArray[np.integer], timestamps_ms: Int64Array, item_count: int
    ) -> "PopularityTimeline":
        """Index n events (users and rows int (n,), times int64 (n,), any order). Cost: two sorts and one pass."""
        since_ms = since_latest_ms(users, rows, timestamps_ms)
        order = np.lexsort((timestamps_ms, rows))
        rows, timestamps_ms, since_ms = rows[order].astype(np.int64), timestamps_ms[order], since_ms[order]
        offsets = np.zeros(item_count + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=item_count), out=offsets[1:])
        first_ms = int(timestamps_ms.min()) if len(rows) else 0
        # Two more than the span, so that "before all" and "after all" are moments of their own.
        span_ms = (int(timestamps_ms.max()) - first_ms if len(rows) else 0) + 2
        return PopularityTimeline(
            offsets=offsets,
            timestamps_ms=timestamps_ms,
            running=_running_counts(offsets, timestamps_ms, since_ms, _LIFETIMES_MS),
            users=_running_users(offsets, since_ms),
            keys=rows * span_ms + (timestamps_ms - first_ms),
            first_ms=first_ms,
            span_ms=span_ms,
        )

    def at(self, rows: npt.NDArray[np.integer], moments_ms: Int64Array) -> Float32Array:
        """Popularity of items strictly before moments.

        Args:
            rows, moments_ms: int64, broadcastable against each other to one shape S.

        Returns:
            float32 (*S, len(ITEM_DYNAMIC)), log1p of the decayed counts of users and of the count of them all.

        Cost: one binary search a pair.
        """
        rows, moments_ms = np.broadcast_arrays(rows, moments_ms)
        rows = rows.astype(np.int64)
        since_first = np.clip(moments_ms - self.first_ms, 0, self.span_ms - 1)
        end = np.searchsorted(self.keys, rows * self.span_ms + since_first)
        count = end - self.offsets[rows]
        last = np.maximum(end - 1, 0)
        out = np.zeros((*rows.shape, len(ITEM_DYNAMIC)), np.float32)
        if len(self.keys):
            out[..., -1] = np.where(count > 0, self.users[last], 0)
            elapsed_ms = (moments_ms - self.timestamps_ms[last]).astype(np.float64)
            for window, lifetime_ms in enumerate(_LIFETIMES_MS):
                decay = np.exp(-np.maximum(elapsed_ms, 0.0) / lifetime_ms)
                out[..., window] = np.where(count > 0, self.running[last, window] * decay, 0.0)
        return np.log1p(out, out=out)

    def table(self, as_of_ms: int) -> Float32Array:
        """Popularity of every item strictly before a moment: float32 (items, len(ITEM_DYNAMIC))."""
        return self.at(np.arange(len(self.offsets) - 1), np.array(as_of_ms, np.int64))


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _running_counts(
    offsets: Int64Array, timestamps_ms: Int64Array, since_ms: Int64Array, lifetimes_ms: Float64Array
) -> Float32Array:
    """Decayed counts of users just after each event: one pass an item, since exp(-(a + b)) = exp(-a) exp(-b).

    An event adds what is missing to one of its user's count: 1 - exp(-since / lifetime).
    """
    running = np.empty((len(timestamps_ms), len(lifetimes_ms)), np.float32)
    for item in range(len(offsets) - 1):
        for event in range(offsets[item], offsets[item + 1]):
            for window in range(len(lifetimes_ms)):
                count = -np.expm1(-since_ms[event] / lifetimes_ms[window])
                if event > offsets[item]:
                    elapsed_ms = timestamps_ms[event] - timestamps_ms[event - 1]
                    count += running[event - 1, window] * np.exp(-elapsed_ms / lifetimes_ms[window])
                running[event, window] = count
    return running


def _running_users(offsets: Int64Array, since_ms: Int64Array) -> Int64Array:
    """int64 (n,): how many of an item's events up to each one are their user's first on it."""
    first = np.concatenate([[0], np.cumsum(since_ms == NEVER_MS)])
    lengths = np.diff(offsets)
    return np.asarray(first[1:] - np.repeat(first[offsets[:-1]], lengths))
