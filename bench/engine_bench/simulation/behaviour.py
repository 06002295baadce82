"""How a simulated user meets a slate: what they look at, open, buy, and when they leave. Known in closed form.

A request is met by the position-based model: the item at position k is looked at with probability 1 / k ** eta, and,
when looked at, opened with a probability that is the user's and the item's alone. Each item is met independently.
What was opened may be bought. Whoever opened something is more likely to ask for more.

Sources: Richardson, Dominowska, Ragno, WWW 2007, and Craswell et al., WSDM 2008 (the position-based model); Joachims,
Swaminathan, Schnabel, WSDM 2017 (1 / k ** eta, with eta = 1 as its default).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.errors import InvalidRequest
from engine.types import BoolArray, Float64Array

# So that the next session of a user is told from it by silence; see engine_bench.simulation.users.
LONGEST_SESSION_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What all users have in common.

    position_bias: eta of 1 / k ** eta; 0: every position is looked at.
    slate_size: items that a request asks for.
    max_requests: of one session.
    continue_after_click, continue_without: the chance of another request after one with a click, and without.
    purchase_share: of the items opened that are bought, where the price does not matter to the user.
    look_s, read_s: mean seconds for a slate, and for an opened item; each takes half to one and a half times as long.

    Raises:
        InvalidRequest: a value out of range, or a session could take longer than LONGEST_SESSION_S.
    """

    position_bias: float = 1.0
    slate_size: int = 10
    max_requests: int = 6
    continue_after_click: float = 0.8
    continue_without: float = 0.5
    purchase_share: float = 0.15
    look_s: float = 15.0
    read_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("continue_after_click", "continue_without", "purchase_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidRequest(name, f"must be between 0 and 1, got {getattr(self, name):g}")
        for name in ("slate_size", "max_requests"):
            if not 1 <= getattr(self, name) <= 200:
                raise InvalidRequest(name, f"must be between 1 and 200, got {getattr(self, name)}")
        for name in ("position_bias", "look_s", "read_s"):
            if not getattr(self, name) >= 0:
                raise InvalidRequest(name, f"must not be negative, got {getattr(self, name):g}")
        longest_s = 1.5 * self.max_requests * (self.look_s + self.slate_size * self.read_s)
        if longest_s > LONGEST_SESSION_S:
            raise InvalidRequest(
                "max_requests", f"a session could take {longest_s:.0f} s, above {LONGEST_SESSION_S:.0f} s"
            )

    def examination(self, count: int) -> Float64Array:
        """float64 (count,): the chance that each position, from the first, is looked at."""
        chances: Float64Array = np.arange(1, count + 1, dtype=np.float64) ** -self.position_bias
        return chances


@dataclass(frozen=True, slots=True)
class Met:
    """What n users do with one slate of k items each.

    clicked, bought: bool (n, k); who bought has clicked. continues: bool (n,), whether they ask for more.
    look_s: float64 (n,). read_s: float64 (n, k), for each item that was opened, else 0.
    """

    clicked: BoolArray
    bought: BoolArray
    continues: BoolArray
    look_s: Float64Array
    read_s: Float64Array


def meet(
    behaviour: Behaviour, attraction: npt.NDArray[np.floating], purchase: npt.NDArray[np.floating],
    random: np.random.Generator,
) -> Met:  # fmt: skip
    """One draw.

    Args:
        attraction: (n, k), the chance that each item, in slate order, is opened once it is looked at.
        purchase: (n, k), the chance that it is bought once it is opened.
    """
    n, k = attraction.shape
    clicked = random.random((n, k)) < attraction * behaviour.examination(k)
    bought = clicked & (random.random((n, k)) < purchase)
    chance = np.where(clicked.any(axis=1), behaviour.continue_after_click, behaviour.continue_without)
    return Met(
        clicked=clicked,
        bought=bought,
        continues=random.random(n) < chance,
        look_s=np.asarray(behaviour.look_s * random.uniform(0.5, 1.5, n)),
        read_s=np.where(clicked, behaviour.read_s * random.uniform(0.5, 1.5, (n, k)), 0.0),
    )


@dataclass(frozen=True, slots=True)
class Expected:
    """Expectations over a session; float64 (n,) each. Named like the sums of engine.experiments.analysis.metrics."""

    requests: Float64Array
    items: Float64Array
    clicks: Float64Array
    clicked_requests: Float64Array
    sessions: Float64Array
    converted_sessions: Float64Array
    session_s: Float64Array
    revenue: Float64Array


def expect(
    behaviour: Behaviour, attraction: npt.NDArray[np.floating], purchase: npt.NDArray[np.floating],
    prices: npt.NDArray[np.floating],
) -> Expected:  # fmt: skip
    """What n sessions come to in the mean, exactly.

    Args:
        attraction, purchase, prices: (n, r, k), of the r slates that a session would see, if it went on for so long.

    Cost: O(n * r * k), and as much memory.
    """
    n, steps, k = attraction.shape
    opened = attraction.astype(np.float64) * behaviour.examination(k)
    earned = opened * purchase
    silent = np.prod(1.0 - opened, axis=2)
    after, without = behaviour.continue_after_click, behaviour.continue_without
    # reached: the chance that the session comes to its r-th request.
    goes_on = after + (without - after) * silent
    reached = np.concatenate([np.ones((n, 1)), np.cumprod(goes_on[:, :-1], axis=1)], axis=1)
    # From the last request backwards: the chance that nothing is bought from here on. Nothing bought with nothing
    # clicked, and with something clicked, go on with different chances.
    unsold = np.prod(1.0 - earned, axis=2)
    nothing = np.ones(n)
    for step in range(steps - 1, -1, -1):
        later = 1.0 - nothing if step < steps - 1 else np.zeros(n)
        quiet, browsed = silent[:, step], unsold[:, step] - silent[:, step]
        nothing = quiet * (1.0 - without * later) + browsed * (1.0 - after * later)
    clicks = opened.sum(axis=2)
    requests = reached.sum(axis=1)
    return Expected(
        requests=requests,
        items=k * requests,
        clicks=(reached * clicks).sum(axis=1),
        clicked_requests=(reached * (1.0 - silent)).sum(axis=1),
        sessions=np.ones(n),
        converted_sessions=1.0 - nothing,
        session_s=(reached * (behaviour.look_s + behaviour.read_s * clicks)).sum(axis=1),
        revenue=(reached * (earned * prices).sum(axis=2)).sum(axis=1),
    )
