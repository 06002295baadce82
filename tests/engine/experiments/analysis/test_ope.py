"""Off-policy estimates in a world whose truth is known."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from engine.errors import DataError, InvalidRequest
from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.ope import (
    LoggedItems,
    OffPolicy,
    Reward,
    TargetRequests,
    estimate_off_policy,
    off_policy,
    read_target,
)
from engine.experiments.analysis.report_query import ReportQuery
from engine.types import Float64Array
from tests.engine.experiments.analysis.archive import HOUR_MS, START_MS, event, exposure, write

PLACES, POOL = 3, 4
REQUESTS_A_PERSON = 4


@dataclass(frozen=True)
class World:
    """Each exposure has three places, and each place four items to choose from, so that every chance is known.

    logged, target: float64 (users, places, pool), chances. click: the same shape, chances of a click, by user.
    """

    logged: Float64Array
    target: Float64Array
    click: Float64Array

    @staticmethod
    def make(seed: int, users: int) -> "World":
        random = np.random.default_rng(seed)
        shape = (users, PLACES, POOL)
        utility = random.normal(0, 1, shape)
        taste = random.normal(-1.5, 0.7, (users, 1, 1))
        click = 1 / (1 + np.exp(-(taste + 0.8 * utility)))
        # The log explores; the target knows better, and is surer of it.
        return World(softmax(0.3 * random.normal(0, 1, shape)), softmax(1.5 * utility), click)

    @property
    def truth(self) -> float:
        """What the target earns per exposure."""
        return float((self.target * self.click).sum(axis=(1, 2)).mean())

    def log(self, seed: int, model_error: float | None) -> tuple[LoggedItems, TargetRequests]:
        """Serve with the log's policy. model_error: of the predictions; None for no model."""
        random = np.random.default_rng(seed)
        user = np.repeat(np.arange(len(self.click)), REQUESTS_A_PERSON)
        chosen = (random.random((len(user), PLACES, 1)) > np.cumsum(self.logged[user], axis=2)).sum(axis=2)
        chosen = np.minimum(chosen, POOL - 1)
        at = (user[:, None], np.arange(PLACES)[None, :], chosen)
        reward = (random.random(chosen.shape) < self.click[at]).astype(np.float64)
        predicted = np.zeros_like(self.click) if model_error is None else np.clip(self.click + model_error, 0, 1)
        items = LoggedItems(
            unit=np.repeat(user, PLACES),
            propensity=self.logged[at].ravel(),
            reward=reward.ravel(),
            target=self.target[at].ravel(),
            predicted=predicted[at].ravel(),
        )
        expected = (self.target * predicted).sum(axis=(1, 2))[user]
        return items, TargetRequests(user, expected, np.full(len(user), float(PLACES)))


def softmax(utility: Float64Array) -> Float64Array:
    weights = np.exp(utility)
    chances: Float64Array = weights / weights.sum(axis=2, keepdims=True)
    return chances


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(1, 400)


@pytest.fixture(scope="module")
def results(world: World) -> list[OffPolicy]:
    """Over 200 logs; the model is wrong by a fifth of a click everywhere."""
    return [estimate_off_policy(*world.log(seed, model_error=0.2)) for seed in range(200)]


@pytest.mark.parametrize("estimator", ["ips", "snips", "doubly_robust"])
def test_the_truth_is_found_on_average(world: World, results: list[OffPolicy], estimator: str) -> None:
    values = np.array([getattr(result, estimator).value for result in results])
    assert abs(values.mean() - world.truth) < 3.5 * values.std(ddof=1) / np.sqrt(len(values))
    # And what was served is far from it, so that this says something.
    assert abs(np.mean([result.logged.value for result in results]) - world.truth) > 0.1 * world.truth


@pytest.mark.parametrize("estimator", ["ips", "snips", "doubly_robust"])
def test_the_intervals_cover_it(world: World, estimator: str) -> None:
    """Users are drawn again each time, as the intervals assume."""
    covered = []
    for seed in range(200):
        one = World.make(1_000 + seed, 300)
        interval = getattr(estimate_off_policy(*one.log(seed, model_error=0.05)), estimator)
        covered.append(interval.low <= TRUTH <= interval.high)
    assert np.mean(covered) >= 0.91


# Of very many users: what all the small worlds above are draws of.
TRUTH = World.make(2, 200_000).truth


def test_a_good_model_takes_the_noise_away(world: World) -> None:
    good = [estimate_off_policy(*world.log(seed, model_error=0.0)) for seed in range(60)]
    robust = np.std([result.doubly_robust.value for result in good if result.doubly_robust])
    assert robust < 0.95 * np.std([result.ips.value for result in good])


def test_without_a_model_nothing_is_doubly_robust(world: World) -> None:
    assert estimate_off_policy(*world.log(1, model_error=None)).doubly_robust is None


def test_support(world: World, results: list[OffPolicy]) -> None:
    assert np.mean([result.support for result in results]) == pytest.approx(1.0, abs=0.01)
    items, requests = world.log(1, None)
    # A target that shows as much again of what the log never shows.
    beyond = TargetRequests(requests.unit, requests.expected, 2 * requests.shown)
    assert estimate_off_policy(items, beyond).support == pytest.approx(0.5, abs=0.05)


def test_bad_propensities_are_refused(world: World) -> None:
    items, requests = world.log(1, None)
    items.propensity[3] = 0.0
    with pytest.raises(InvalidRequest, match="propensities"):
        estimate_off_policy(items, requests)
    items.propensity[3] = 1.1
    with pytest.raises(InvalidRequest, match="propensities"):
        estimate_off_policy(items, requests)
    items.propensity[3] = 1.0
    for chance in (-0.1, 1.1):
        items.target[3] = chance
        with pytest.raises(InvalidRequest, match="target"):
            estimate_off_policy(items, requests)


def test_where_nothing_is_weighed_anew_all_estimates_are_what_was_earned() -> None:
    """With the log's own chances for the target: the mean of users' rewards, with the interval of a ratio."""
    unit = np.repeat(np.arange(50), 2)
    reward = np.random.default_rng(3).poisson(0.7, 100).astype(np.float64)
    chance = np.full(100, 0.25)
    result = estimate_off_policy(
        LoggedItems(unit, chance, reward, chance, np.zeros(100)),
        TargetRequests(unit, np.zeros(100), np.ones(100)),
        alpha=0.1,
    )
    per_person = reward.reshape(50, 2).mean(axis=1)
    half_width = 1.6448536 * per_person.std(ddof=1) / np.sqrt(50)
    for found in (result.logged, result.ips, result.snips):
        assert (found.value, found.low, found.high) == pytest.approx(
            (per_person.mean(), per_person.mean() - half_width, per_person.mean() + half_width), rel=1e-6
        )
    assert result.doubly_robust is None
    assert (result.requests, result.support, result.effective_items) == (100, 1.0, 100.0)
    assert result.largest_weight == 1.0


@pytest.mark.parametrize(
    ("items", "requests", "said"),
    [
        ([], [0, 1], "nothing that was logged"),
        ([0], [], "nothing that was logged"),
        ([0], [0, 0], "one user alone"),
        ([0, 2], [0, 1], "users without an exposure"),
    ],
)
def test_logs_that_say_nothing_are_refused(items: list[int], requests: list[int], said: str) -> None:
    ones = np.ones(len(items))
    logged = LoggedItems(np.array(items, np.int64), ones, ones, ones, ones)
    shown = TargetRequests(np.array(requests, np.int64), np.ones(len(requests)), np.ones(len(requests)))
    with pytest.raises(InvalidRequest, match=said):
        estimate_off_policy(logged, shown)


class TestArchive:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Archive:
        exposures = [
            exposure(f"u{n}", "a", START_MS + n, request_id=f"r{n}", item_ids=["x", "y"], propensities=[0.5, 0.25])
            for n in range(4)
        ]
        events = [
            event("u0", "click", "x", START_MS + 1_000, request_id="r0"),
            event("u1", "click", "y", START_MS + 1_000, request_id="r1"),
            event("u1", "purchase", "y", START_MS + HOUR_MS, value=8.0),
        ]
        return Archive.within(write(tmp_path, exposures, events))

    def target(self, path: Path, rows: str, header: str = "request_id,item_id,probability") -> Path:
        path.write_text(f"{header}\n{rows}\n")
        return path

    def test_by_hand(self, archive: Archive, tmp_path: Path) -> None:
        rows = "\n".join(f"r{n},x,0.1\nr{n},y,0.5\nr{n},z,0.4" for n in range(4))
        target = read_target(self.target(tmp_path / "t.csv", rows))
        result = off_policy(archive, ReportQuery("worth"), "a", target, Reward.CLICKS)
        # A click on x at 0.1 / 0.5 and one on y at 0.5 / 0.25, over four exposures.
        assert result.ips.value == pytest.approx((0.2 + 2.0) / 4)
        assert result.logged.value == pytest.approx(0.5)
        assert result.support == pytest.approx(2.2)
        assert result.doubly_robust is None
        revenue = off_policy(archive, ReportQuery("worth"), "a", target, Reward.REVENUE)
        assert revenue.ips.value == pytest.approx(2.0 * 8.0 / 4)
        assert revenue.snips.value == pytest.approx(2.0 * 8.0 / (4 * 2.2))

    def test_predictions(self, archive: Archive, tmp_path: Path) -> None:
        header = "request_id,item_id,probability,predicted_reward"
        rows = "\n".join(f"r{n},x,0.5,0.2\nr{n},z,0.5,0.6" for n in range(4))
        target = read_target(self.target(tmp_path / "t.csv", rows, header))
        result = off_policy(archive, ReportQuery("worth"), "a", target, Reward.CLICKS)
        assert result.doubly_robust is not None
        assert result.doubly_robust.value == pytest.approx(0.4 + (1.0 - 4 * 0.2) / 4)

    def test_a_request_for_several_surfaces(self, tmp_path: Path) -> None:
        shown = [
            exposure(user, "a", START_MS, request_id=f"page-{user}", surface=surface, item_ids=["x"], propensities=[p])
            for surface, p in (("home", 0.5), ("cart", 0.25))
            for user in ("u", "v")
        ]
        clicks = [event("u", "click", "x", START_MS + 1_000, request_id="page-u", surface="cart")]
        archive = Archive.within(write(tmp_path, shown, clicks))
        header = "request_id,surface,item_id,probability"
        rows = "\n".join(f"page-{user},{surface},x,1" for user in "uv" for surface in ("cart", "home"))
        target = read_target(self.target(tmp_path / "t.csv", rows, header))
        result = off_policy(archive, ReportQuery("worth"), "a", target, Reward.CLICKS)
        assert result.logged.value == pytest.approx(1 / 4)
        assert result.ips.value == pytest.approx(1 / 0.25 / 4)
        without = read_target(self.target(tmp_path / "u.csv", "page-u,x,1\npage-v,x,1"))
        with pytest.raises(InvalidRequest, match="needs a column `surface`"):
            off_policy(archive, ReportQuery("worth"), "a", without, Reward.CLICKS)
        # Of one surface alone nothing is doubtful.
        home = off_policy(archive, ReportQuery("worth", surface="home"), "a", without, Reward.CLICKS)
        assert home.ips.value == 0.0

    def test_what_cannot_be_estimated(self, archive: Archive, tmp_path: Path) -> None:
        target = read_target(self.target(tmp_path / "t.csv", "elsewhere,x,1"))
        with pytest.raises(InvalidRequest, match="says nothing of the 4 exposures"):
            off_policy(archive, ReportQuery("worth"), "a", target, Reward.CLICKS)
        with pytest.raises(InvalidRequest, match="no exposures of 'worth' to 'b'"):
            off_policy(archive, ReportQuery("worth"), "b", target, Reward.CLICKS)
        with pytest.raises(DataError, match="column probability is missing"):
            read_target(self.target(tmp_path / "u.csv", "r,x", "request_id,item_id"))
        with pytest.raises(DataError, match="probability cannot be read as numbers"):
            read_target(self.target(tmp_path / "v.csv", "r,x,often"))
        with pytest.raises(DataError, match="no such file"):
            read_target(tmp_path / "nowhere.csv")
        broken = tmp_path / "broken.parquet"
        broken.write_bytes(b"no table")
        for unreadable in (broken, tmp_path):
            with pytest.raises(DataError, match=f"{unreadable}: "):
                read_target(unreadable)
        with pytest.raises(DataError, match="an item is listed twice"):
            read_target(self.target(tmp_path / "x.csv", "r,x,0.5\nr,y,0.5\nr,x,0.5"))
        pl.DataFrame({"request_id": ["r"], "item_id": ["x"], "probability": [None]}).write_parquet(
            tmp_path / "w.parquet"
        )
        with pytest.raises(DataError, match="absent or not finite"):
            read_target(tmp_path / "w.parquet")
