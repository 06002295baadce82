"""Experiments without a server: users, two ways to choose their slates, and what is true of the difference."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from engine.experiments.analysis.metrics import METRICS, TOTALS
from engine.types import Float32Array, Float64Array, Int64Array
from engine_bench.simulation.behaviour import Behaviour, Expected, expect, meet
from engine_bench.simulation.users import Users
from engine_bench.synthetic.world import INTERESTS_PER_USER


@dataclass(frozen=True, slots=True)
class _Offers:
    """What each variant shows each user: arrays of (variants, users, …), r slates of k items each.

    attraction: float32 (variants, users, interests, r, k). purchase, prices: (variants, users, r, k).
    """

    attraction: Float32Array
    purchase: Float64Array
    prices: Float64Array


class Shop:
    """Users whose slates are known beforehand, so that thousands of them act in a moment.

    Args:
        slates: int64 (users, slate_size * max_requests) for each variant, in the order of the variants.

    Cost: O(variants * users * interests * items shown * dim) once, and 20 bytes for each combination.
    """

    def __init__(self, users: Users, behaviour: Behaviour, slates: Mapping[str, Int64Array]) -> None:
        self.users = users
        self.behaviour = behaviour
        self.variants = tuple(slates)
        parts = [self._offers(items) for items in slates.values()]
        self._offers_of = _Offers(*(np.stack([getattr(part, one.name) for part in parts]) for one in fields(_Offers)))

    def act(self, variant: npt.NDArray[np.integer], random: np.random.Generator) -> Float64Array:
        """What each user does in the period, when shown what their variant (users,) says, a place in `variants`.

        Returns:
            float64 (users, len(TOTALS)), as engine.experiments.analysis.compare takes it.

        Cost: about 2 µs a request.
        """
        visits = self.users.visits(random)
        totals = np.zeros((self.users.count, len(TOTALS)))
        going = np.arange(len(visits.users))
        converted = np.zeros(len(visits.users), bool)

        def add(name: str, users: Int64Array, values: npt.NDArray[np.generic] | None = None) -> None:
            totals[:, TOTALS.index(name)] += np.bincount(users, values, self.users.count)

        add("sessions", visits.users)
        for step in range(self.behaviour.max_requests):
            users, interests = visits.users[going], visits.interests[going]
            shown = variant[users].astype(np.int64)
            attraction = self._offers_of.attraction[shown, users, interests, step]
            met = meet(self.behaviour, attraction, self._offers_of.purchase[shown, users, step], random)
            add("requests", users)
            add("items", users, np.full(len(users), attraction.shape[1]))
            add("clicks", users, met.clicked.sum(axis=1))
            add("clicked_requests", users, np.asarray(met.clicked.any(axis=1)))
            add("session_s", users, met.look_s + met.read_s.sum(axis=1))
            add("revenue", users, (met.bought * self._offers_of.prices[shown, users, step]).sum(axis=1))
            converted[going] |= np.asarray(met.bought.any(axis=1))
            going = going[met.continues]
        add("converted_sessions", visits.users, converted)
        return totals

    def truth(self) -> dict[str, dict[str, float]]:
        """The value of each metric, if everybody were shown one variant, by variant and metric: potential outcomes.

        Exact: expectations over visits, interests, clicks and purchases, summed over all users.
        """
        visits = self.users.expected_visits()
        return {name: self._values(place, visits) for place, name in enumerate(self.variants)}

    def true_lifts(self, treatment: str, control: str) -> dict[str, float]:
        """The relative lift of each metric; 0.12 is 12% more."""
        truth = self.truth()
        return {name: truth[treatment][name] / truth[control][name] - 1.0 for name in truth[treatment]}

    def _values(self, variant: int, visits: Float64Array) -> dict[str, float]:
        sums = dict.fromkeys((one.name for one in fields(Expected)), 0.0)
        for interest in range(INTERESTS_PER_USER):
            offers = self._offers_of
            of_session = expect(
                self.behaviour,
                offers.attraction[variant, :, interest],
                offers.purchase[variant],
                offers.prices[variant],
            )
            for name in sums:
                sums[name] += float(getattr(of_session, name) @ visits[:, interest])
        return {metric.name: sums[metric.numerator] / sums[metric.denominator] for metric in METRICS}

    def _offers(self, items: Int64Array) -> _Offers:
        everybody = np.arange(self.users.count)
        shape = (self.users.count, self.behaviour.max_requests, self.behaviour.slate_size)
        attraction = [
            self.users.attraction(everybody, np.full(self.users.count, interest), items).reshape(shape)
            for interest in range(INTERESTS_PER_USER)
        ]
        purchase = self.users.purchase(self.behaviour, everybody, items).reshape(shape)
        prices = self.users.world.items.prices[items].reshape(shape)
        return _Offers(np.stack(attraction, axis=1), purchase, prices)
