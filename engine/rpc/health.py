"""grpc.health.v1 for one server that either serves or does not.

The library's asyncio servicer never ends a Watch stream, and a server drains only once every call has ended: one load
balancer that watches would hold each shutdown for the whole grace period. Here Watch ends after its last NOT_SERVING.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

OVERALL = ""


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the library has no types
    """One status for the overall name and for each service; NOT_SERVING until told otherwise."""

    def __init__(self, services: Iterable[str]) -> None:
        self._names = frozenset({OVERALL, *services})
        self._status = health_pb2.HealthCheckResponse.NOT_SERVING
        self._changed = asyncio.Event()
        self._shut_down = False

    @property
    def serving(self) -> bool:
        return bool(self._status == health_pb2.HealthCheckResponse.SERVING)

    def set_serving(self, serving: bool) -> None:
        """Change the status and tell the watchers; after `shut_down` it stays NOT_SERVING."""
        if not self._shut_down:
            response = health_pb2.HealthCheckResponse
            self._publish(response.SERVING if serving else response.NOT_SERVING)

    def shut_down(self) -> None:
        """NOT_SERVING for good; every Watch stream says so and ends."""
        self.set_serving(False)
        self._shut_down = True
        self._publish(health_pb2.HealthCheckResponse.NOT_SERVING)

    def _publish(self, status: Any) -> None:
        self._status = status
        # Whoever waits holds the old event: setting it wakes them all, and nobody has to clear it.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status_of(self, service: str) -> Any:
        if service in self._names:
            return self._status
        return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

    async def Check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: N802
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=self._status)

    async def Watch(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: N802
        sent = None
        while True:
            # All three before the write, so that a change during it sets the event held here.
            changed, status, last = self._changed, self._status_of(request.service), self._shut_down
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            if last:
                return
            await changed.wait()
