"""Simulated users with heavy-tailed habits: a few come daily and buy, most come once and do not.

Everything of one user hangs together (activity, taste, spending), so that requests are far from independent and
statistics that take them for units are wrong.
"""

from dataclasses import dataclass

import numpy as np

from engine.types import Float64Array

COLUMNS = ("requests", "items", "clicks", "clicked_requests", "sessions", "converted_sessions", "session_s", "revenue")
ITEMS_A_REQUEST = 10


@dataclass(frozen=True, slots=True)
class Crowd:
    """One draw of users, float64 (experiments, users, …).

    values: columns as in COLUMNS. before: what each did in as long a time before: clicks, sessions, purchases, revenue.
    """

    values: Float64Array
    before: Float64Array

    def column(self, name: str) -> Float64Array:
        return self.values[..., COLUMNS.index(name)]


@dataclass(frozen=True, slots=True)
class Habits:
    """What does not change about a user: float64 (experiments, users) each."""

    sessions: Float64Array
    click_rate: Float64Array
    buy_rate: Float64Array
    basket: Float64Array

    @staticmethod
    def draw(random: np.random.Generator, experiments: int, users: int) -> "Habits":
        shape = (experiments, users)
        return Habits(
            sessions=random.lognormal(0.5, 1.0, shape),
            click_rate=random.beta(2.0, 18.0, shape),
            buy_rate=random.beta(1.5, 20.0, shape),
            basket=random.lognormal(3.0, 0.6, shape),
        )


def behave(random: np.random.Generator, habits: Habits, time: float = 1.0, lift: float = 0.0) -> Float64Array:
    """What these users do in a stretch of time: float64 (experiments, users, columns).

    lift: relative, on the chance of a click and of a purchase, and on the length of sessions.
    """
    sessions = random.poisson(habits.sessions * time)
    requests = sessions + random.poisson(0.7 * sessions)
    clicked = random.binomial(requests, habits.click_rate * (1.0 + lift))
    clicks = clicked + random.binomial(clicked, 0.2)
    converted = random.binomial(sessions, habits.buy_rate * (1.0 + lift))
    spread = random.lognormal(-0.125, 0.5, sessions.shape)
    revenue = converted * habits.basket * spread
    # A sum of exponential stretches of five minutes each.
    session_s = random.gamma(np.maximum(sessions, 1e-9), 300.0 * (1.0 + lift)) * (sessions > 0)
    columns = (requests, requests * ITEMS_A_REQUEST, clicks, clicked, sessions, converted, session_s, revenue)
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=-1)


def crowd(seed: int, experiments: int, users: int, lift: float = 0.0) -> Crowd:
    """Users of one variant, those without a session included, who were never exposed and count for nothing."""
    random = np.random.default_rng(seed)
    habits = Habits.draw(random, experiments, users)
    before = behave(random, habits)
    return Crowd(behave(random, habits, lift=lift), before)
