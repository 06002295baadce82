"""What load is sent to: a server over several connections, with requests encoded before the clock starts."""

import asyncio
import datetime
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import uvloop

from engine_bench.child import port_printing
from engine_bench.load_driver import Answer, Ask, Schedule, Status
from engine_client import build_request
from engine_client.types import Priority
from engine_client.v1 import recommendation_pb2 as pb

METHOD = f"/{pb.DESCRIPTOR.services_by_name['RecommendationService'].full_name}/Recommend"
SURFACE, ITEM_COUNT = "home", 50
# A client that would wait longer than the server's own limit: who is late is told so by the server.
TIMEOUT_S = 1.0
# As several callers have: one connection's flow control and one HTTP/2 stream limit are not what is measured.
_CHANNELS = 4
_STATUSES = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Status.DEADLINE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Status.EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE: Status.UNAVAILABLE,
    grpc.StatusCode.CANCELLED: Status.CANCELLED,
}
_DEVICES, _COUNTRIES = ("mobile", "desktop", "tablet"), ("DE", "FR", "US")


def circumstances(place: int) -> tuple[str, str]:
    """Device and country of the request at a place of a schedule."""
    return _DEVICES[place % len(_DEVICES)], _COUNTRIES[place % len(_COUNTRIES)]


class GrpcTarget:
    """Channels to one address; belongs to one event loop. Nothing is retried: every failure is a result.

    asked_for: the moment that requests are to be answered for; by default they leave that to the server's clock.
    """

    def __init__(self, address: str, asked_for: datetime.datetime | None = None) -> None:
        self._asked_for = asked_for
        # Without a pool of its own a channel would share its connection with all others of the same address.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self._channels = [grpc.aio.insecure_channel(address, options) for _ in range(_CHANNELS)]
        self._calls: list[Any] = [
            # Requests are bytes already.
            channel.unary_unary(METHOD, None, pb.RecommendResponse.FromString)
            for channel in self._channels
        ]

    async def connect(self) -> None:
        """Return once all channels are connected."""
        for channel in self._channels:
            await channel.channel_ready()

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close(None)

    def asked_by(
        self, schedule: Schedule, user_ids: Sequence[str], priority_of: Callable[[int], Priority] | None = None
    ) -> Ask:
        """The target of one schedule, whose requests are encoded here and now. priority_of: by place."""
        encoded = []
        for place, (user, debug) in enumerate(zip(schedule.users.tolist(), schedule.debug.tolist(), strict=True)):
            device, country = circumstances(place)
            request = build_request(
                user_ids[user],
                SURFACE,
                item_count=ITEM_COUNT,
                time=self._asked_for,
                device=device,
                country=country,
                debug=debug,
                priority=None if priority_of is None else priority_of(place),
            )
            encoded.append(request.SerializeToString())

        async def ask(place: int) -> Answer:
            call = self._calls[place % len(self._calls)]
            try:
                response: pb.RecommendResponse = await call(encoded[place], timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                return Answer(_STATUSES.get(error.code(), Status.OTHER))
            stages = None
            if schedule.debug[place]:
                stages = {timing.stage: timing.duration_ms for timing in response.debug.stages}
            return Answer(Status.OK, bool(response.degraded_reasons), stages)

        return ask


@contextmanager
def null_server() -> Iterator[str]:
    """The server in a process of its own, for as long as the context lasts; yields its address."""
    with port_printing("engine_bench.load_target") as (_, address):
        yield address


async def _serve() -> None:
    items = [
        pb.RecommendedItem(item_id=f"item-{number:07d}", score=0.5, position=number + 1, propensity=1.0)
        for number in range(ITEM_COUNT)
    ]
    answer = pb.RecommendResponse(items=items, bundle_version="null", request_id="0" * 32).SerializeToString()

    async def recommend(_: bytes, context: Any) -> bytes:
        return answer

    _, service, method = METHOD.split("/")
    server = grpc.aio.server()
    handlers = {method: grpc.unary_unary_rpc_method_handler(recommend)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(_serve())
