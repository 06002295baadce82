"""The closed form against the obvious: many users, one after the other."""

from dataclasses import fields

import numpy as np
import pytest

from engine.errors import InvalidRequest
from engine_bench.simulation.behaviour import Behaviour, Expected, expect, meet

SLATES, SHOWN = 3, 4
BEHAVIOUR = Behaviour(slate_size=SHOWN, max_requests=SLATES, continue_after_click=0.9, continue_without=0.3)


def offer(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (1, SLATES, SHOWN)
    return random.uniform(0.05, 0.7, shape), random.uniform(0.05, 0.6, shape), random.uniform(1.0, 20.0, shape)


def one_session(
    attraction: np.ndarray, purchase: np.ndarray, prices: np.ndarray, random: np.random.Generator
) -> list[float]:
    sums = dict.fromkeys((one.name for one in fields(Expected)), 0.0)
    sums["sessions"] = 1.0
    for step in range(SLATES):
        met = meet(BEHAVIOUR, attraction[:, step], purchase[:, step], random)
        assert not (met.bought & ~met.clicked).any()
        assert ((met.read_s > 0) == met.clicked).all()
        sums["requests"] += 1
        sums["items"] += SHOWN
        sums["clicks"] += met.clicked.sum()
        sums["clicked_requests"] += met.clicked.any()
        sums["session_s"] += met.look_s.sum() + met.read_s.sum()
        sums["revenue"] += (met.bought * prices[:, step]).sum()
        sums["converted_sessions"] = max(sums["converted_sessions"], float(met.bought.any()))
        if not met.continues[0]:
            break
    return list(sums.values())


def test_what_is_expected_is_what_happens_in_the_mean() -> None:
    random = np.random.default_rng(1)
    attraction, purchase, prices = offer(2)
    drawn = np.array([one_session(attraction, purchase, prices, random) for _ in range(20_000)])
    expected = expect(BEHAVIOUR, attraction, purchase, prices)
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    for place, one in enumerate(fields(Expected)):
        # Four standard errors, for eight figures: by chance once in some 2,000 seeds.
        assert drawn[:, place].mean() == pytest.approx(getattr(expected, one.name)[0], abs=4 * error[place] + 1e-9)


def test_positions_are_looked_at_by_the_power_of_their_place() -> None:
    # Everything that is looked at is opened.
    met = meet(Behaviour(position_bias=0.5), np.ones((40_000, 10)), np.zeros((40_000, 10)), np.random.default_rng(3))
    assert met.clicked.mean(axis=0) == pytest.approx(np.arange(1, 11) ** -0.5, abs=0.012)
    assert not met.bought.any()


def test_without_bias_everything_is_looked_at() -> None:
    met = meet(Behaviour(position_bias=0.0), np.ones((10, 10)), np.ones((10, 10)), np.random.default_rng(3))
    assert met.clicked.all()
    assert met.bought.all()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"position_bias": -1.0}, "position_bias"),
        ({"continue_without": 1.5}, "continue_without"),
        ({"slate_size": 0}, "slate_size"),
        ({"read_s": float("nan")}, "read_s"),
        ({"max_requests": 60}, "max_requests"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidRequest, match=field):
        Behaviour(**values)  # type: ignore[arg-type]
