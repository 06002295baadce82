"""What a server says of itself to Prometheus.

Kept cheap, since every request pays: label lookups are remembered, the stages of every eighth request are recorded, and
what has a value at any moment (requests in flight, the bundle) is looked at once a second.
"""

import asyncio
from collections.abc import Callable, Collection
from functools import cache
from typing import Final

import grpc
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from engine.experiments.exposure import ExposureCounts
from engine.rpc.access_log import AccessLog, Call
from engine.rpc.servicer import Recommender
from engine.types import DegradedReason, Recommendation, RecommendQuery, Strategy
from engine_client.status import OVERLOADED_REASON

STAGE_SAMPLE_EVERY: Final = 8
GAUGE_PERIOD_S: Final = 1.0
_REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.25, 1.0)
_STAGE_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.03, 0.1)


class ServerMetrics:
    """The figures of one serving process; one instance a registry.

    Where PROMETHEUS_MULTIPROC_DIR was set before `prometheus_client` was imported they live in files there, which an
    `engine.rpc.metrics_endpoint` adds up over the processes.

    Cost: about 15 µs a request on the machine of the README's figures, see bench/suite/test_metrics.py.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        calls = Counter("engine_requests", "Calls that have ended.", ("method", "code"), registry=registry)
        call_s = Histogram(
            "engine_request_seconds",
            "From admission to the answer, without calls refused for overload: those take no time.",
            ("method",),
            buckets=_REQUEST_BUCKETS_S,
            registry=registry,
        )
        refusals = Counter(
            "engine_overload_refusals", "Calls refused since too much was under way.", ("method",), registry=registry
        )
        strategies = Counter("engine_recommendations", "Answers by strategy.", ("strategy",), registry=registry)
        degraded = Counter("engine_degraded", "Answers in which a fallback stood in.", ("reason",), registry=registry)
        stage_s = Histogram(
            "engine_stage_seconds",
            f"Time in each stage, of every {STAGE_SAMPLE_EVERY}th answer of a process.",
            ("stage",),
            buckets=_STAGE_BUCKETS_S,
            registry=registry,
        )
        self._in_flight = Gauge(
            "engine_requests_in_flight", "Calls that run now.", registry=registry, multiprocess_mode="livesum"
        )
        self._bundle = Gauge(
            "engine_bundle_info",
            "Processes that serve this bundle.",
            ("version",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        outdated = Gauge(
            "engine_last_known_good",
            "Processes that serve by an earlier one than the current one, which does not verify.",
            ("what",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._outdated = {what: outdated.labels(what) for what in ("bundle", "rules")}
        self._exposures = Counter(
            "engine_exposures", "Requests in the exposure log, failures among them.", registry=registry
        )
        drops = Counter(
            "engine_exposure_drops", "Answers that are missing from the exposure log.", ("reason",), registry=registry
        )
        self._exposures_refused, self._exposures_failed = drops.labels("queue_full"), drops.labels("undelivered")
        self._counts = ExposureCounts(0, 0, 0)
        # Methods, codes, stages and reasons are few and fixed, so that these caches stay small.
        self._calls = cache(lambda method, code: calls.labels(_short(method), code.name))
        self._call_s = cache(lambda method: call_s.labels(_short(method)))
        self._refusals = cache(lambda method: refusals.labels(_short(method)))
        self._stage_s = cache(stage_s.labels)
        self._strategies = {strategy: strategies.labels(strategy.name.lower()) for strategy in Strategy}
        self._degraded = {reason: degraded.labels(reason.name.lower()) for reason in DegradedReason}
        self._answers = 0
        self._version: str | None = None

    def ended(self, method: str, code: grpc.StatusCode, seconds: float, *, refused: bool = False) -> None:
        """One call has ended.

        Args:
            method: its full name, /package.Service/Method.
            refused: it was turned away, since too much was under way.
        """
        self._calls(method, code).inc()
        if refused:
            self._refusals(method).inc()
        else:
            self._call_s(method).observe(seconds)

    def answered(self, recommendation: Recommendation) -> None:
        """One recommendation was made."""
        self._strategies[recommendation.strategy].inc()
        for reason in recommendation.degraded_reasons:
            self._degraded[reason].inc()
        if self._answers % STAGE_SAMPLE_EVERY == 0:
            for timing in recommendation.timings:
                self._stage_s(timing.stage).observe(timing.duration_ms / 1000)
        self._answers += 1

    def set_gauges(
        self, in_flight: int, version: str, exposures: ExposureCounts | None = None, outdated: Collection[str] = ()
    ) -> None:
        """How things stand at this moment.

        exposures: since the start; counted is what has come since the last call. outdated: "bundle" or "rules" where an
        earlier one than the current one serves.
        """
        self._in_flight.set(in_flight)
        for what, gauge in self._outdated.items():
            gauge.set(what in outdated)
        if version != self._version:
            # Shared files keep every label that they ever had: what no longer serves counts as nought.
            if self._version is not None:
                self._bundle.labels(self._version).set(0)
            self._bundle.labels(version).set(1)
            self._version = version
        if exposures is not None:
            self._exposures.inc(exposures.logged - self._counts.logged)
            self._exposures_refused.inc(exposures.refused - self._counts.refused)
            self._exposures_failed.inc(exposures.failed - self._counts.failed)
            self._counts = exposures


class MeasuredAccessLog(AccessLog):
    """The access log, which hears of every call's end, and counts it as well."""

    def __init__(self, sample_every: int, metrics: ServerMetrics) -> None:
        super().__init__(sample_every)
        self._metrics = metrics

    def success(self, call: Call) -> None:
        self._metrics.ended(call.method, grpc.StatusCode.OK, call.elapsed_s)
        super().success(call)

    def cancelled(self, call: Call) -> None:
        self._metrics.ended(call.method, grpc.StatusCode.CANCELLED, call.elapsed_s)
        super().cancelled(call)

    def failure(self, call: Call, code: grpc.StatusCode, reason: str, error: BaseException) -> None:
        self._metrics.ended(call.method, code, call.elapsed_s, refused=reason == OVERLOADED_REASON)
        super().failure(call, code, reason, error)


class MeasuredRecommender:
    """A recommender whose answers are counted. Implements engine.rpc.servicer.Recommender."""

    def __init__(self, recommender: Recommender, metrics: ServerMetrics) -> None:
        self._recommender = recommender
        self._metrics = metrics

    async def recommend(
        self, query: RecommendQuery, answer_by: float, deadline: float = float("inf")
    ) -> Recommendation:
        recommendation = await self._recommender.recommend(query, answer_by, deadline)
        self._metrics.answered(recommendation)
        return recommendation


async def follow_gauges(
    metrics: ServerMetrics,
    in_flight: Callable[[], int],
    version: Callable[[], str],
    exposures: Callable[[], ExposureCounts | None] = lambda: None,
    outdated: Callable[[], Collection[str]] = tuple,
) -> None:
    """Look at what has a value at any moment once a second, forever."""
    while True:
        metrics.set_gauges(in_flight(), version(), exposures(), outdated())
        await asyncio.sleep(GAUGE_PERIOD_S)


def _short(method: str) -> str:
    """The API's methods have names of their own, without package and service."""
    return method.rsplit("/", 1)[-1]
