"""The synthetic world's users as visitors: when they come, what for, and how much they want what they are shown."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.types import Float32Array, Float64Array, Int64Array
from engine_bench.simulation.behaviour import Behaviour
from engine_bench.synthetic.world import INTERESTS_PER_USER, MS_PER_DAY, World, draw_columns

# A session begins in the first half hour of a slot of two hours and is over before the last half hour, so that two
# sessions of a user are told apart by the silence between them.
SLOT_MS: Final = 2 * 3_600_000
SLOTS_PER_DAY: Final = MS_PER_DAY // SLOT_MS
_START_WITHIN_MS: Final = SLOT_MS // 4
# Of a day's sessions, by slot from midnight (UTC): few at night, most in the evening.
_SLOT_WEIGHTS: Final = np.array([3, 2, 3, 10, 14, 15, 17, 14, 15, 20, 27, 22], float)
_HIGHEST_CHANCE: Final = 0.7


@dataclass(frozen=True, slots=True)
class Visits:
    """n sessions in order of their time. users, interests: int64 (n,). starts_ms: int64 (n,)."""

    users: Int64Array
    interests: Int64Array
    starts_ms: Int64Array


class Users:
    """The first `count` users of a world, over a period of whole days from `begin_ms`.

    Prices, novelty and taste are taken at the period's end: they stay what they are over a few days.

    Args:
        visits_per_day: of one user in the mean; the few who come often come many times as often as the rest.

    Cost: O(count * slots) memory, 16 bytes each.
    """

    def __init__(self, world: World, count: int, begin_ms: int, days: int, visits_per_day: float) -> None:
        self.world = world
        self.count = count
        self.begin_ms = begin_ms
        self.end_ms = begin_ms + days * MS_PER_DAY
        activity = world.users.activity[:count]
        slot_starts = begin_ms + SLOT_MS * np.arange(days * SLOTS_PER_DAY)
        of_day = slot_starts // SLOT_MS % SLOTS_PER_DAY
        rates = visits_per_day * (_SLOT_WEIGHTS / _SLOT_WEIGHTS.sum())[of_day]
        self._slot_starts = slot_starts.astype(np.int64)
        self._chances = np.minimum(activity[:, None] / activity.mean() * rates, _HIGHEST_CHANCE)

    def visits(self, random: np.random.Generator) -> Visits:
        """Who comes when, and what for; whatever they were shown before."""
        users, slots = np.nonzero(random.random(self._chances.shape) < self._chances)
        starts = self._slot_starts[slots] + random.integers(0, _START_WITHIN_MS, len(users))
        order = np.lexsort((users, starts))
        users, slots, starts = users[order], slots[order], starts[order]
        weights = self.world.interest_weights(users, self._slot_starts[slots])
        return Visits(users, draw_columns(weights, random), starts)

    def expected_visits(self) -> Float64Array:
        """float64 (count, INTERESTS_PER_USER): how many sessions of each user are about each of their interests."""
        expected = np.zeros((self.count, INTERESTS_PER_USER))
        everybody = np.arange(self.count)
        for slot, start_ms in enumerate(self._slot_starts):
            weights = self.world.interest_weights(everybody, np.full(self.count, start_ms)).astype(np.float64)
            expected += self._chances[:, slot, None] * weights / weights.sum(axis=1, keepdims=True)
        return expected

    def attraction(self, users: Int64Array, interests: Int64Array, items: Int64Array) -> Float32Array:
        """float32 (n, k): the chance that n users with these interests (n,) open each of k items (n, k) once seen."""
        times = np.full(len(users), self.end_ms)
        return self.world.attraction(users, items, self.world.intents_of(users, interests), times)

    def purchase(self, behaviour: Behaviour, users: Int64Array, items: Int64Array) -> Float64Array:
        """float64 (n, k): the chance that n users buy each of k items (n, k) that they have opened."""
        reluctance = self.world.users.price_sensitivity[users][:, None] * self.world.items.price_z[items]
        chances: Float64Array = np.minimum(2.0 * behaviour.purchase_share / (1.0 + np.exp(reluctance)), 1.0)
        return chances
