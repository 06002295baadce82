"""Users of the synthetic world at a real server: they ask for slates, act on them, and have what they did recorded."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.errors import EngineError, InvalidRequest
from engine.types import Float64Array, Int64Array
from engine_bench.simulation.behaviour import Behaviour, Met, meet
from engine_bench.simulation.users import Users
from engine_bench.synthetic.catalogue import item_ids, user_ids
from engine_bench.synthetic.events import COUNTRIES
from engine_bench.synthetic.words import DEVICES, LOCATIONS
from engine_client import AsyncRecommendationClient, build_event
from engine_client.v1 import event_pb2
from engine_client.v1 import recommendation_pb2 as pb

_HOME_COUNTRIES: Final = tuple(LOCATIONS.values())
_MAX_BATCH: Final = 500
assert set(_HOME_COUNTRIES) == set(COUNTRIES)


@dataclass(frozen=True, slots=True)
class Served:
    """One request and what came of it.

    variant: of the experiment; empty for those who are not in it. expected_clicked, expected_clicks: the chance of any
    click on what was shown, and the mean number of clicks. others: the same two for what each other variant would have
    shown, by its name.
    """

    user: int
    session: int
    variant: str
    items: int
    degraded: bool
    clicks: int
    purchases: int
    revenue: float
    expected_clicked: float
    expected_clicks: float
    others: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Errand:
    """A session to come. number: unique within the run. user, interest: places in the world."""

    number: int
    user: int
    interest: int
    start_ms: int


class Visitor:
    """Plays sessions. All choices of a session follow from the seed, its number, and what it was shown.

    Args:
        run: a name that no other run has: request and event ids begin with it.
        experiment: whose variant is noted.
        counterfactual: a server of the same state that logs no exposures, to ask for what the variants in
            `other_variants` would have shown in the place of the assigned one; whoever asked the real one would be
            taken for a tester.
    """

    def __init__(
        self,
        client: AsyncRecommendationClient,
        users: Users,
        behaviour: Behaviour,
        seed: int,
        run: str,
        surface: str,
        experiment: str,
        counterfactual: AsyncRecommendationClient | None = None,
        other_variants: Sequence[str] = (),
    ) -> None:
        self._client = client
        self._users = users
        self._behaviour = behaviour
        self._seed = seed
        self._run = run
        self._surface = surface
        self._experiment = experiment
        self._counterfactual = counterfactual
        self._other_variants = other_variants
        self._item_ids = item_ids(users.world.size.items).to_list()
        self._rows = {item_id: row for row, item_id in enumerate(self._item_ids)}
        self._user_ids = user_ids(users.world.size.users).to_list()

    def request_id(self, errand: Errand, step: int) -> str:
        """Of the step-th request of a session, from 0."""
        return f"{self._run}-{errand.number}-{step}"

    async def play(self, errand: Errand, asked: list[Served]) -> str | None:
        """One session, request by request; each is appended to `asked` once its events are recorded.

        Returns:
            Why the server gave no answer, when it gave none: then the session is over.

        Raises:
            InvalidRequest: an event was refused. EngineError: events could not be recorded.
        """
        random = np.random.default_rng([self._seed, errand.number])
        now_ms = errand.start_ms
        shown: list[str] = []
        for step in range(self._behaviour.max_requests):
            try:
                response = await self._recommend(self._client, errand, self.request_id(errand, step), now_ms, shown)
            except EngineError as error:
                return str(error)
            if not response.items:
                return None
            others = await self._others(response, errand, now_ms, shown)
            rows = self._rows_of(response)
            attraction = self._attraction(errand, rows)
            users = np.array([errand.user])
            purchase = self._users.purchase(self._behaviour, users, np.maximum(rows, 0)[None, :])
            met = meet(self._behaviour, attraction, purchase, random)
            await self._record(errand, response, rows, met, now_ms)
            asked.append(
                Served(
                    errand.user, errand.number, _variant(response, self._experiment), len(rows),
                    bool(response.degraded_reasons), int(met.clicked.sum()), int(met.bought.sum()),
                    float(self._users.world.items.prices[rows[met.bought[0]]].sum()),
                    *self._expected(attraction), others,
                )
            )  # fmt: skip
            shown += [item.item_id for item in response.items]
            now_ms += _ms(met.look_s[0] + met.read_s.sum())
            if not met.continues[0]:
                break
        return None

    async def _recommend(
        self, client: AsyncRecommendationClient, errand: Errand, request_id: str, now_ms: int, shown: list[str],
        overrides: dict[str, str] | None = None,
    ) -> pb.RecommendResponse:  # fmt: skip
        users = self._users.world.users
        return await client.recommend(
            self._user_ids[errand.user],
            self._surface,
            item_count=self._behaviour.slate_size,
            time=_moment(now_ms),
            device=DEVICES[users.devices[errand.user]],
            country=_HOME_COUNTRIES[users.locations[errand.user]],
            exclude_item_ids=shown,
            request_id=request_id,
            experiment_overrides=overrides or {},
        )

    async def _others(
        self, response: pb.RecommendResponse, errand: Errand, now_ms: int, shown: list[str]
    ) -> dict[str, tuple[float, float]]:
        own = _variant(response, self._experiment)
        if self._counterfactual is None or own not in self._other_variants:
            return {}
        found = {}
        for variant in self._other_variants:
            if variant != own:
                request_id = f"{response.request_id}-{variant}"
                other = await self._recommend(
                    self._counterfactual, errand, request_id, now_ms, shown, {self._experiment: variant}
                )
                found[variant] = self._expected(self._attraction(errand, self._rows_of(other)))
        return found

    def _rows_of(self, response: pb.RecommendResponse) -> Int64Array:
        """int64 (k,), -1 for items that the world has not made: nobody wants them."""
        return np.array([self._rows.get(item.item_id, -1) for item in response.items], np.int64)

    def _attraction(self, errand: Errand, rows: Int64Array) -> Float64Array:
        """float64 (1, k)."""
        chances = self._users.attraction(
            np.array([errand.user]), np.array([errand.interest]), np.maximum(rows, 0)[None, :]
        )
        return np.where(rows < 0, 0.0, chances.astype(np.float64))

    def _expected(self, attraction: Float64Array) -> tuple[float, float]:
        opened = attraction[0] * self._behaviour.examination(attraction.shape[1])
        return float(1.0 - np.prod(1.0 - opened)), float(opened.sum())

    async def _record(
        self, errand: Errand, response: pb.RecommendResponse, rows: Int64Array, met: Met, now_ms: int
    ) -> None:
        """Impressions once the slate was looked at, then each opened item: its click, then dwell and purchase."""
        done_ms = now_ms + _ms(met.look_s[0])
        planned: list[tuple[event_pb2.EventType, int, int, float | None, int | None]]
        planned = [(event_pb2.EVENT_TYPE_IMPRESSION, place, done_ms, None, None) for place in range(len(rows))]
        for place in np.flatnonzero(met.clicked[0]).tolist():
            read_ms = max(_ms(met.read_s[0, place]), 1)
            planned.append((event_pb2.EVENT_TYPE_CLICK, place, done_ms, None, None))
            done_ms += read_ms
            planned.append((event_pb2.EVENT_TYPE_DWELL, place, done_ms, None, read_ms))
            if met.bought[0, place]:
                price = float(self._users.world.items.prices[rows[place]])
                planned.append((event_pb2.EVENT_TYPE_PURCHASE, place, done_ms, price, None))
        events = [
            build_event(
                self._user_ids[errand.user],
                kind,
                response.items[place].item_id,
                event_id=f"{response.request_id}-{number}",
                time=_moment(at_ms),
                surface=self._surface,
                session_id=f"{self._run}-{errand.number}",
                request_id=response.request_id,
                position=response.items[place].position,
                value=value,
                dwell_ms=dwell_ms,
            )
            for number, (kind, place, at_ms, value, dwell_ms) in enumerate(planned)
        ]
        for start in range(0, len(events), _MAX_BATCH):
            recorded = await self._client.record_events(events[start : start + _MAX_BATCH])
            if recorded.rejected:
                refused = recorded.rejected[0]
                raise InvalidRequest(refused.field, refused.reason)


def _variant(response: pb.RecommendResponse, experiment: str) -> str:
    return next((one.variant for one in response.experiments if one.experiment == experiment), "")


def _ms(seconds: float) -> int:
    return round(1000.0 * float(seconds))


def _moment(ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)
