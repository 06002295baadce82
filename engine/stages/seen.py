"""Stage: what the surface's seen policy says of the items that the user has met before."""

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np

from engine.config.seen import SeenConfig
from engine.features.seen_history import windows_by_type
from engine.features.state import SeenItems
from engine.kernels.membership import clear_rows, test_rows
from engine.kernels.seen_items import SeenColumns
from engine.kernels.seen_policy import demotions, judge, resolve_rows, within_limit
from engine.types import BoolArray, Candidates, Float32Array, Int64Array, ItemSource, UInt8Array


class ItemRows(Protocol):
    """Which items there are. Safe for concurrent readers."""

    def rows(self, keys: Int64Array) -> Int64Array:
        """int64 (n,): the row of each item key, -1 for an unknown one."""
        ...


@dataclass(frozen=True, slots=True)
class SeenPolicy:
    """One surface's settings, as kernels take them.

    hide_s, demote_s: int64 (256,), by event type. demotion: what a recent item's score is multiplied by. recent_share:
    of a slate, how much may be recent. free_impressions, half_life_s: of showings.
    """

    hide_s: Int64Array
    demote_s: Int64Array
    demotion: float
    recent_share: float
    free_impressions: float
    half_life_s: float

    @staticmethod
    def of(config: SeenConfig, half_life_s: float) -> "SeenPolicy":
        return SeenPolicy(
            windows_by_type(config.hide),
            windows_by_type(config.demote),
            config.demotion,
            config.recent_share,
            config.free_impressions,
            half_life_s,
        )

    def recent_limit(self, item_count: int) -> int:
        """How many of so many items may be recent while there are others."""
        return int(self.recent_share * item_count + 1e-9)


class SeenRows(NamedTuple):
    """Rows with the events that say something of them; a row may be there with several.

    rows: int64 (n,), ascending. event_types: uint8 (n,). times_s: int64 (n,).
    """

    rows: Int64Array
    event_types: UInt8Array
    times_s: Int64Array

    def those(self, mask: BoolArray) -> "SeenRows":
        return SeenRows(self.rows[mask], self.event_types[mask], self.times_s[mask])

    def longest_ago(self) -> "SeenRows":
        """Each row once, with its latest event, the one whose latest is longest ago first."""
        falling = np.lexsort((self.event_types, self.rows, self.times_s))[::-1]
        _, latest = np.unique(self.rows[falling], return_index=True)
        order = falling[np.sort(latest)][::-1]
        return SeenRows(self.rows[order], self.event_types[order], self.times_s[order])


@dataclass(frozen=True, slots=True)
class SeenVerdict:
    """Of this request's items, which ones are hidden, recent or tired; all of them could be shown otherwise.

    recent: what was just looked at. tired_rows: int64 (t,), ascending, shown often without interest; tired_factors:
    float32 (t,), what that leaves of their scores.
    """

    policy: SeenPolicy
    hidden: SeenRows
    recent: SeenRows
    tired_rows: Int64Array
    tired_factors: Float32Array

    def factors(self, rows: Int64Array) -> Float32Array | None:
        """What to multiply the scores of rows (n,) by, float32 (n,); None where all of it is 1."""
        if not len(self.recent.rows) and not len(self.tired_rows):
            return None
        return demotions(rows, self.recent.rows, self.policy.demotion, self.tired_rows, self.tired_factors)

    def hold_back(self, candidates: Candidates, item_count: int) -> Candidates:
        """The candidates without the recent ones beyond the policy's limit, the first of them staying."""
        limit = self.policy.recent_limit(item_count)
        if len(self.recent.rows) <= limit:
            return candidates
        kept = within_limit(candidates.rows, self.recent.rows, limit)
        return candidates if len(kept) == len(candidates) else candidates.take(kept)

    def take_recent(self, eligible: UInt8Array) -> SeenRows:
        """The recent items whose bit is set; the bits are cleared."""
        if not len(self.recent.rows):
            return self.recent
        found = self.recent.those(test_rows(eligible, self.recent.rows))
        clear_rows(eligible, found.rows)
        return found


def apply_policy(
    policy: SeenPolicy, catalogue: ItemRows, seen: SeenItems, time_ms: int, eligible: UInt8Array
) -> SeenVerdict:
    """Judge what the user has met before, and clear what that hides.

    Args:
        time_ms: the moment of the request. eligible: uint8 (bytes,), what may be shown otherwise; written.

    Cost: O(seen) for the judgement, and the search for a row for each event that counts.
    """
    judged = judge(
        SeenColumns(seen.item_keys, seen.event_types, seen.times_s, seen.counts),
        time_ms // 1000,
        policy.hide_s,
        policy.demote_s,
        policy.free_impressions,
        policy.half_life_s,
    )
    places = judged.places
    if not len(places):
        return SeenVerdict(policy, _NO_ROWS, _NO_ROWS, _NO_ROWS.rows, judged.factors)
    rows = catalogue.rows(seen.item_keys[places])
    resolved = resolve_rows(judged, rows, eligible)

    def of(positions: Int64Array) -> SeenRows:
        if not len(positions):
            return _NO_ROWS
        own = places[positions]
        return SeenRows(rows[positions], seen.event_types[own], seen.times_s[own])

    return SeenVerdict(policy, of(resolved.hidden), of(resolved.recent), resolved.tired, resolved.factors)


def let_back_in(seen: SeenRows, eligible: UInt8Array, limit: int) -> tuple[Candidates, dict[int, int]]:
    """The first `limit` of what was kept away and may be shown, what is longest ago first.

    Args:
        eligible: uint8 (bytes,), what may be shown at all.

    Returns:
        The candidates with falling scores, and by row the type of the event that had kept it away.
    """
    allowed = seen.those(test_rows(eligible, seen.rows)).longest_ago()
    rows = allowed.rows[:limit]
    scores = (1.0 / (1.0 + np.arange(len(rows)))).astype(np.float32)
    reasons = dict(zip(rows.tolist(), allowed.event_types[:limit].tolist(), strict=True))
    return Candidates.of(rows, scores, ItemSource.LET_BACK_IN), reasons


_NO_ROWS: Final = SeenRows(np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64))
