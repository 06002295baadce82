"""Calls that a busy machine may make late: asked again, and said in one line, so that the demonstration goes on."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, Unpack

from engine.errors import DeadlineExceeded, DependencyUnavailable, EngineError, Overloaded, described
from engine_client import RecommendationClient, RequestFields
from engine_client.v1 import catalog_pb2, event_pb2
from engine_client.v1 import recommendation_pb2 as pb

T = TypeVar("T")

# What another attempt, or a quieter moment, may put right. Anything else is a fault, and is not to be talked away.
PASSING: Final[tuple[type[EngineError], ...]] = (DeadlineExceeded, DependencyUnavailable, Overloaded)
_ATTEMPTS: Final = 3
_UNHURRIED_ATTEMPTS: Final = 25


class PatientClient:
    """The calls that the demonstration makes. Raises one of PASSING where the last attempt fails as well.

    Args:
        say: called with one sentence for each call that was late or failed.
    """

    def __init__(self, client: RecommendationClient, say: Callable[[str], None]) -> None:
        self.client = client
        self._say = say

    def recommend(self, user_id: str, surface: str, **fields: Unpack[RequestFields]) -> pb.RecommendResponse:
        """An answer by all stages where a few attempts bring one; else the last, whose degraded reasons say more."""
        for _ in range(_UNHURRIED_ATTEMPTS):
            response = self._again(
                f"an answer for {user_id}", lambda: self.client.recommend(user_id, surface, **fields)
            )
            if pb.DEGRADED_REASON_BUDGET_EXHAUSTED not in response.degraded_reasons:
                return response
        self._say(
            f"The machine is too busy for all stages of {user_id}'s answer within the budget: popularity answered"
        )
        return response

    def record_events(self, events: Iterable[event_pb2.Event]) -> None:
        """Record events, all of which the server must take."""
        batch = list(events)
        self._again("recording events", lambda: self.client.record_events(batch))

    def upsert_items(self, items: Iterable[catalog_pb2.Item]) -> None:
        batch = list(items)
        self._again("adding items", lambda: self.client.upsert_items(batch))

    def update_inventory(self, in_stock: Mapping[str, bool]) -> None:
        self._again("changing the stock", lambda: self.client.update_inventory(in_stock))

    def delete_items(self, item_ids: Iterable[str]) -> None:
        batch = list(item_ids)
        self._again("removing items", lambda: self.client.delete_items(batch))

    def _again(self, what: str, call: Callable[[], T]) -> T:
        for _ in range(_ATTEMPTS - 1):
            try:
                return call()
            except PASSING as error:
                self._say(f"One call was late, and is made again: {what}: {described(error)}")
        return call()


def stage_times(response: pb.RecommendResponse) -> dict[str, float]:
    """Milliseconds by stage of an answer to debug."""
    return {timing.stage: timing.duration_ms for timing in response.debug.stages}


def enum_name(enum: Any, value: int, prefix: str) -> str:
    """An enum's value in words: STRATEGY_PERSONALIZED is "personalized"."""
    return str(enum.Name(value)).removeprefix(prefix).lower().replace("_", " ")
