"""EventService: judge events one by one, append the good ones to the log, answer for all of them."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

import grpc

from engine.contract.events import EventRules, split_batch
from engine_client.v1 import event_pb2 as pb
from engine_client.v1 import event_pb2_grpc as pb_grpc


class EventLog(Protocol):
    """What the service needs from the log."""

    async def append(self, events: Sequence[pb.Event], received_ms: int) -> None:
        """Return once every event is safely in the log.

        Args:
            events: valid ones, at least one.
            received_ms: the server's clock, in milliseconds since 1970.

        Raises:
            DependencyUnavailable: not all of them are known to be in the log.
            Overloaded: the log takes no more at this moment, and took none of these.
        """
        ...


class EventServicer(pb_grpc.EventServiceServicer):
    """The service over one log."""

    def __init__(self, event_log: EventLog, rules: EventRules) -> None:
        self._log = event_log
        self._rules = rules

    async def RecordEvents(  # noqa: N802
        self, request: pb.RecordEventsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.RecordEventsResponse:
        now_ms = time.time_ns() // 1_000_000
        accepted, rejected = split_batch(request.events, self._rules, now_ms)
        if accepted:
            await self._log.append(accepted, now_ms)
        return pb.RecordEventsResponse(accepted_count=len(accepted), rejected=rejected)
