"""The gRPC server: the services, health and reflection on one port, its start and its drain."""

import asyncio
import logging
import signal
from collections.abc import Iterable
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.errors import ConfigError
from engine.rpc.access_log import AccessLog
from engine.rpc.catalog_servicer import CatalogServicer, CatalogueRoom, CatalogueStore
from engine.rpc.event_servicer import EventLog, EventServicer
from engine.rpc.experiment_servicer import ExperimentServicer, Reporter
from engine.rpc.health import HealthServicer
from engine.rpc.interceptors import Admission, CallInterceptor
from engine.rpc.metrics import MeasuredAccessLog, ServerMetrics
from engine.rpc.port import address_of, check_bindable
from engine.rpc.reflection import add_reflection
from engine.rpc.servicer import RecommendationServicer, Recommender
from engine.rpc.validate import MAX_REQUEST_BYTES
from engine.rpc.validate_catalog import CatalogueRules
from engine.rpc.validate_events import EventRules
from engine.v1 import catalog_pb2, catalog_pb2_grpc, event_pb2, event_pb2_grpc, experiment_pb2, experiment_pb2_grpc
from engine.v1 import recommendation_pb2 as pb
from engine.v1 import recommendation_pb2_grpc as pb_grpc

logger = logging.getLogger(__name__)

SERVICE_NAME: str = pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name
EVENT_SERVICE_NAME: str = event_pb2.DESCRIPTOR.services_by_name["EventService"].full_name
CATALOG_SERVICE_NAME: str = catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name
EXPERIMENT_SERVICE_NAME: str = experiment_pb2.DESCRIPTOR.services_by_name["ExperimentService"].full_name
HEALTH_SERVICE_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
MAX_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the server listens and what it bears.

    Args:
        surfaces: those that it answers for.
        host: an address to listen on; "0.0.0.0" or "[::]" for all.
        port: 0 takes a free one.
        request_timeout_ms: the longest that one request may take.
        reserve_ms: of that, what is kept for answering by popularity when the rest was not enough.
        concurrency_limit: requests that may run at once; past it the answer is RESOURCE_EXHAUSTED at once.
        event_concurrency_limit: the same for batches of events, apart, so that a slow log takes no place from requests.
        catalog_concurrency_limit: the same for batches of catalogue changes.
        report_concurrency_limit: the same for reports about experiments.
        categories: the only ones that items may have; empty allows any.
        max_event_age_s: older events are refused.
        max_event_ahead_s: events further in the future are refused.
        max_calls: all calls at once, health and reflection included: the backstop.
        max_request_bytes: the longest message taken in.
        reuse_port: let several processes share the port. Off by default: with it on, a port that another server
            holds by mistake is not noticed.
        keepalive_time_s: silence after which a connection is probed.
        keepalive_timeout_s: how long the probe may take before the connection is dropped.
        min_client_ping_s: clients that probe more often than this are cut off.
        max_connection_age_s: connections are renewed at about this age, calls in flight undisturbed; 0: never. A
            connection stays with the process that took it, so that processes which share a port need this to share
            the load again after one of them was replaced.
        access_log_every: each n-th success is logged at INFO.

    Raises:
        ConfigError: a value out of range.
    """

    surfaces: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 50051
    request_timeout_ms: float = 100.0
    reserve_ms: float = 15.0
    concurrency_limit: int = 64
    event_concurrency_limit: int = 64
    catalog_concurrency_limit: int = 16
    report_concurrency_limit: int = 8
    categories: tuple[str, ...] = ()
    max_event_age_s: int = 7 * 86_400
    max_event_ahead_s: int = 300
    max_calls: int = 1024
    max_request_bytes: int = MAX_REQUEST_BYTES
    reuse_port: bool = False
    keepalive_time_s: float = 60.0
    keepalive_timeout_s: float = 10.0
    min_client_ping_s: float = 10.0
    max_connection_age_s: float = 0.0
    access_log_every: int = 1000

    def __post_init__(self) -> None:
        if not self.surfaces or not all(self.surfaces):
            raise ConfigError("surfaces: the server needs at least one surface, and no empty one")
        if not 0 <= self.port <= MAX_PORT:
            raise ConfigError(f"port: must be between 0 and {MAX_PORT}, got {self.port}")
        for name in (
            "request_timeout_ms",
            "concurrency_limit",
            "event_concurrency_limit",
            "catalog_concurrency_limit",
            "report_concurrency_limit",
            "max_event_age_s",
            "max_request_bytes",
            "keepalive_time_s",
            "keepalive_timeout_s",
            "min_client_ping_s",
            "access_log_every",
        ):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: must be above 0, got {getattr(self, name)}")
        if not self.reserve_ms >= 0:
            raise ConfigError(f"reserve_ms: must not be negative, got {self.reserve_ms}")
        limits = (
            self.concurrency_limit
            + self.event_concurrency_limit
            + self.catalog_concurrency_limit
            + self.report_concurrency_limit
        )
        if self.max_calls <= limits:
            raise ConfigError(
                f"max_calls: must be above the concurrency limits together ({limits}), or health checks "
                f"would be refused under load; got {self.max_calls}"
            )

    @property
    def address(self) -> str:
        """host:port, with the brackets that an IPv6 address needs."""
        return address_of(self.host, self.port)


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
    settings: ServerSettings,
    credentials: grpc.ServerCredentials | None = None,
    event_log: EventLog | None = None,
    catalogue: tuple[CatalogueStore, CatalogueRoom] | None = None,
    metrics: ServerMetrics | None = None,
    reporter: Reporter | None = None,
) -> Server:
    """Build the server and bind its port, without answering yet.

    Binding comes first so that a port in use is known before a bundle is loaded; callers that connect before `start`
    wait for it.

    Args:
        recommender: the engine.
        settings: see there.
        credentials: TLS; plain text without.
        event_log: where recorded events go; without, the server has no EventService.
        catalogue: where its changes go, and what there is room for; without, the server has no CatalogService.
        metrics: what counts the calls; without, nothing does.
        reporter: what makes reports about experiments; without, the server has no ExperimentService.

    Raises:
        ConfigError: the address cannot be bound; the text says which and why.

    Must be called inside the event loop that will run it.
    """
    admissions = {SERVICE_NAME: Admission(settings.concurrency_limit)}
    if event_log is not None:
        admissions[EVENT_SERVICE_NAME] = Admission(settings.event_concurrency_limit)
    if catalogue is not None:
        admissions[CATALOG_SERVICE_NAME] = Admission(settings.catalog_concurrency_limit)
    if reporter is not None:
        admissions[EXPERIMENT_SERVICE_NAME] = Admission(settings.report_concurrency_limit)
    health = HealthServicer(admissions)
    every = settings.access_log_every
    access_log = AccessLog(every) if metrics is None else MeasuredAccessLog(every, metrics)
    server = grpc.aio.server(
        interceptors=[CallInterceptor(admissions, access_log)],
        options=_options(settings),
        maximum_concurrent_rpcs=settings.max_calls,
    )
    servicer = RecommendationServicer(recommender, settings.surfaces, settings.request_timeout_ms, settings.reserve_ms)
    pb_grpc.add_RecommendationServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    if event_log is not None:
        events = EventServicer(event_log, _event_rules(settings))
        event_pb2_grpc.add_EventServiceServicer_to_server(events, server)  # type: ignore[no-untyped-call]
    if catalogue is not None:
        rules = CatalogueRules(frozenset(settings.surfaces), frozenset(settings.categories))
        changes = CatalogServicer(*catalogue, rules)
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(changes, server)  # type: ignore[no-untyped-call]
    if reporter is not None:
        reports = ExperimentServicer(reporter)
        experiment_pb2_grpc.add_ExperimentServiceServicer_to_server(reports, server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    add_reflection(server, [*admissions, HEALTH_SERVICE_NAME])
    return Server(server, health, admissions.values(), _bind(server, settings, credentials))


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


def _event_rules(settings: ServerSettings) -> EventRules:
    return EventRules(
        surfaces=frozenset(settings.surfaces),
        max_age_ms=settings.max_event_age_s * 1000,
        max_ahead_ms=settings.max_event_ahead_s * 1000,
    )


def _bind(server: grpc.aio.Server, settings: ServerSettings, credentials: grpc.ServerCredentials | None) -> int:
    check_bindable(settings.host, settings.port, reuse_port=settings.reuse_port)
    try:
        if credentials is None:
            return server.add_insecure_port(settings.address)
        return server.add_secure_port(settings.address, credentials)
    except RuntimeError as error:
        raise ConfigError(f"cannot listen on {settings.address}") from error


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    # grpc spreads the renewals by 10% itself, so that clients which came together do not all come back together.
    age = [("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000))]
    return [
        *(age if settings.max_connection_age_s else []),
        ("grpc.so_reuseport", int(settings.reuse_port)),
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.keepalive_time_ms", int(settings.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        # grpc's default of 5 minutes would cut off clients that watch an idle connection.
        ("grpc.http2.min_ping_interval_without_data_ms", int(settings.min_client_ping_s * 1000)),
    ]
