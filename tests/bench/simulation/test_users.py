import numpy as np
import pytest

from engine.experiments.analysis.report_query import ReportRules
from engine_bench.simulation.behaviour import LONGEST_SESSION_S
from engine_bench.simulation.users import Users
from engine_bench.synthetic.world import World, WorldSize

BEGIN_MS = 1_772_409_600_000 + 5_000_000
DAYS = 20


@pytest.fixture(scope="module")
def users() -> Users:
    return Users(World(WorldSize(items=300, users=200), 4), 150, BEGIN_MS, DAYS, 0.8)


def test_they_come_as_often_as_expected(users: Users) -> None:
    random = np.random.default_rng(5)
    found = np.zeros((users.count, 4))
    rounds = 60
    for _ in range(rounds):
        visits = users.visits(random)
        np.add.at(found, (visits.users, visits.interests), 1.0)
    expected = users.expected_visits()
    assert expected.sum() == pytest.approx(150 * DAYS * 0.8, rel=0.1)
    assert found.sum() / rounds == pytest.approx(expected.sum(), rel=0.02)
    # Counts of at most one a slot vary less than Poisson's.
    assert (np.abs(found - rounds * expected) <= 6 * np.sqrt(rounds * expected) + 3).all()


def test_sessions_of_one_person_are_told_apart_by_silence(users: Users) -> None:
    visits = users.visits(np.random.default_rng(6))
    assert (np.diff(visits.starts_ms) >= 0).all()
    assert users.begin_ms <= visits.starts_ms.min()
    assert visits.starts_ms.max() + 1000 * LONGEST_SESSION_S <= users.end_ms
    order = np.lexsort((visits.starts_ms, visits.users))
    users, starts = visits.users[order], visits.starts_ms[order]
    pauses = np.diff(starts)[np.diff(users) == 0] - 1000 * LONGEST_SESSION_S
    assert len(pauses) > 1000
    assert pauses.min() >= ReportRules().session_gap_ms


def test_the_same_seed_makes_the_same_visits(users: Users) -> None:
    one, other = (users.visits(np.random.default_rng(7)) for _ in range(2))
    assert (one.users == other.users).all()
    assert (one.interests == other.interests).all()
    assert (one.starts_ms == other.starts_ms).all()
