"""The gRPC server: the services, health and reflection on one port, its start and its drain."""

import asyncio
import logging
import signal
from collections.abc import Iterable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.config.serving import EngineConfig
from engine.contract.events import EventRules
from engine.contract.items import CatalogueRules
from engine.errors import ConfigError
from engine.rpc.access_log import AccessLog
from engine.rpc.catalog_servicer import CatalogServicer, CatalogueCapacity, CatalogueStore
from engine.rpc.event_servicer import EventLog, EventServicer
from engine.rpc.experiment_servicer import ExperimentServicer, Reporter
from engine.rpc.health import HealthServicer
from engine.rpc.interceptors import Admission, CallInterceptor
from engine.rpc.metrics import MeasuredAccessLog, ServerMetrics
from engine.rpc.overload import CRITICAL_SHARE
from engine.rpc.port import address_of, check_bindable
from engine.rpc.reflection import add_reflection
from engine.rpc.servicer import RecommendationServicer, Recommender
from engine_client.requests import MAX_REQUEST_BYTES
from engine_client.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    experiment_pb2,
    experiment_pb2_grpc,
)
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc

logger = logging.getLogger(__name__)

SERVICE_NAME: str = pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name
EVENT_SERVICE_NAME: str = event_pb2.DESCRIPTOR.services_by_name["EventService"].full_name
CATALOG_SERVICE_NAME: str = catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name
EXPERIMENT_SERVICE_NAME: str = experiment_pb2.DESCRIPTOR.services_by_name["ExperimentService"].full_name
HEALTH_SERVICE_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

# Calls beside those that admission counts, health checks that go on among them: the backstop against a full memory.
_OTHER_CALLS = 16_384
# Of one connection, so that one client cannot take all of them.
_MOST_STREAMS = 256
# Silence after which a connection is probed, and how long the probe may take before the connection is dropped.
_KEEPALIVE_MS, _KEEPALIVE_TIMEOUT_MS = 60_000, 10_000
# Clients that probe more often than this are cut off.
_MIN_CLIENT_PING_MS = 10_000
_ACCESS_LOG_EVERY = 1000


class Server:
    """One listening server; made by `create_server`, which has bound its port."""

    def __init__(
        self, server: grpc.aio.Server, health: HealthServicer, admissions: Iterable[Admission], port: int
    ) -> None:
        self._server = server
        self._health = health
        self._admissions = tuple(admissions)
        self.port = port

    @property
    def in_flight(self) -> int:
        """Requests that run at this moment, health and reflection left out."""
        return sum(admission.in_flight for admission in self._admissions)

    async def start(self) -> None:
        """Answer calls. Until `set_serving`, health says NOT_SERVING and requests get UNAVAILABLE."""
        await self._server.start()

    def set_serving(self) -> None:
        """Everything is loaded and warm: health says SERVING and requests are let in."""
        for admission in self._admissions:
            admission.open()
        self._health.set_serving(True)

    async def stop(self, grace_s: float) -> None:
        """Drain: health says NOT_SERVING, no new call is taken, those in flight may finish.

        Args:
            grace_s: seconds after which whatever still runs is cancelled.

        Safe to call again; a second call with a shorter grace cuts the first one short.
        """
        self._health.shut_down()
        await self._server.stop(grace_s)

    async def wait_stopped(self) -> None:
        """Return once `stop` has finished."""
        # Shielded, because grpc awaits the very future that its shutdown completes: cancelling it breaks `stop`.
        await asyncio.shield(self._server.wait_for_termination())


def create_server(
    recommender: Recommender,
    config: EngineConfig,
    credentials: grpc.ServerCredentials | None = None,
    event_log: EventLog | None = None,
    catalogue: tuple[CatalogueStore, CatalogueCapacity] | None = None,
    metrics: ServerMetrics | None = None,
    reporter: Reporter | None = None,
    *,
    shares_port: bool = False,
    access_log_every: int = _ACCESS_LOG_EVERY,
    other_calls: int = _OTHER_CALLS,
) -> Server:
    """Build the server and bind its port, without answering yet.

    Binding comes first so that a port in use is known before a bundle is loaded; callers that connect before `start`
    wait for it.

    Args:
        recommender: the engine.
        config: surfaces, and the sections server, events, catalog and reports.
        credentials: TLS; plain text without.
        event_log: where recorded events go; without, the server has no EventService.
        catalogue: where its changes go, and how many new items fit; without, the server has no CatalogService.
        metrics: what counts the calls; without, nothing does.
        reporter: what makes reports about experiments; without, the server has no ExperimentService.
        shares_port: several processes listen on the port. Off by default: with it on, a port that another server holds
            by mistake is not noticed. A connection stays with the process that took it, so connections are renewed at
            about `server.max_connection_age_s`, for the processes to share the load again after one was replaced.
        access_log_every: each n-th success is logged at INFO.
        other_calls: beside those that admission lets in, health checks and reflection among them.

    Raises:
        ConfigError: the address cannot be bound; the text says which and why.

    Must be called inside the event loop that will run it.
    """
    surfaces = frozenset(config.surfaces)
    # An adaptive limit (engine.rpc.overload) refuses before that, critical requests last.
    most = config.server.max_concurrent_requests * (CRITICAL_SHARE if config.server.adaptive_concurrency else 1)
    admissions = {SERVICE_NAME: Admission(most)}
    if event_log is not None:
        admissions[EVENT_SERVICE_NAME] = Admission(config.events.max_concurrent_batches)
    if catalogue is not None:
        admissions[CATALOG_SERVICE_NAME] = Admission(config.catalog.max_concurrent_batches)
    if reporter is not None:
        admissions[EXPERIMENT_SERVICE_NAME] = Admission(config.reports.max_waiting)
    health = HealthServicer(admissions)
    access_log = AccessLog(access_log_every) if metrics is None else MeasuredAccessLog(access_log_every, metrics)
    server = grpc.aio.server(
        interceptors=[CallInterceptor(admissions, access_log)],
        options=_options(
            config.server.max_connection_age_s if shares_port else 0.0, config.server.max_pending_calls, shares_port
        ),
        # The backstop. It is above all that admission lets in: health checks are not refused under load.
        maximum_concurrent_rpcs=sum(admission.limit for admission in admissions.values()) + other_calls,
    )
    servicer = RecommendationServicer(recommender, surfaces, config.server.request_timeout_ms, config.server.reserve_ms)
    pb_grpc.add_RecommendationServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    if event_log is not None:
        rules = EventRules(
            surfaces=surfaces,
            max_age_ms=config.events.max_age_s * 1000,
            max_ahead_ms=config.events.max_ahead_s * 1000,
        )
        events = EventServicer(event_log, rules)
        event_pb2_grpc.add_EventServiceServicer_to_server(events, server)  # type: ignore[no-untyped-call]
    if catalogue is not None:
        changes = CatalogServicer(*catalogue, CatalogueRules(surfaces, frozenset(config.catalog.categories)))
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(changes, server)  # type: ignore[no-untyped-call]
    if reporter is not None:
        reports = ExperimentServicer(reporter)
        experiment_pb2_grpc.add_ExperimentServiceServicer_to_server(reports, server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    add_reflection(server, [*admissions, HEALTH_SERVICE_NAME])
    port = _bind(server, config.server.host, config.server.port, credentials, shares_port)
    return Server(server, health, admissions.values(), port)


async def serve_until_signal(server: Server, grace_s: float) -> None:
    """Run a started server until SIGTERM or SIGINT, then drain it; a second signal ends it at once.

    Args:
        grace_s: seconds for the requests in flight.

    Main thread only, as signal handlers are.
    """
    loop = asyncio.get_running_loop()
    drains: set[asyncio.Task[None]] = set()

    def drain(signal_number: signal.Signals) -> None:
        grace = 0.0 if drains else grace_s
        logger.info("%s: draining %d requests, for at most %g s", signal_number.name, server.in_flight, grace)
        drains.add(asyncio.ensure_future(server.stop(grace)))

    signals = (signal.SIGTERM, signal.SIGINT)
    for signal_number in signals:
        loop.add_signal_handler(signal_number, drain, signal_number)
    try:
        await server.wait_stopped()
        await asyncio.gather(*drains)
    finally:
        for signal_number in signals:
            loop.remove_signal_handler(signal_number)


def _bind(
    server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None, shares_port: bool
) -> int:
    check_bindable(host, port, reuse_port=shares_port)
    address = address_of(host, port)
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ConfigError(f"cannot listen on {address}") from error


def _options(max_connection_age_s: float, max_pending_calls: int, shares_port: bool) -> list[tuple[str, int]]:
    # grpc spreads the renewals by 10% itself, so that clients which came together do not all come back together.
    age = [("grpc.max_connection_age_ms", int(max_connection_age_s * 1000))]
    return [
        *(age if max_connection_age_s else []),
        ("grpc.so_reuseport", int(shares_port)),
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_concurrent_streams", _MOST_STREAMS),
        # The last resort, where the event loop itself cannot keep up: gRPC refuses (CANCELLED) without asking it. Below
        # that, admission refuses with a reason and a hint.
        ("grpc.server.max_pending_requests", max_pending_calls),
        ("grpc.server.max_pending_requests_hard_limit", max_pending_calls),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # grpc's default of 5 minutes would cut off clients that watch an idle connection.
        ("grpc.http2.min_ping_interval_without_data_ms", _MIN_CLIENT_PING_MS),
    ]
