"""What both clients' channels have in common: options, retries, health, errors."""

import json
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from engine_client.status import translated
from engine_client.v1 import catalog_pb2, event_pb2
from engine_client.v1 import recommendation_pb2 as pb

SERVICE_NAME: str = pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name
EVENT_SERVICE_NAME: str = event_pb2.DESCRIPTOR.services_by_name["EventService"].full_name
CATALOG_SERVICE_NAME: str = catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name
DEFAULT_TIMEOUT_S = 0.2
# A batch waits for Kafka's acknowledgement; enough for all retries of a server whose Kafka is away to say so.
RECORD_TIMEOUT_S = 10.0
# A report reads an archive.
REPORT_TIMEOUT_S = 300.0
DEFAULT_RETRIES = 3
# grpc allows five attempts in all.
MAX_RETRIES = 4
HEALTH_POLL_S = 0.05
HEALTH_REQUEST = StringValue(value=SERVICE_NAME)
_SERVING = 1


def channel_options(retries: int) -> list[tuple[str, Any]]:
    if not 0 <= retries <= MAX_RETRIES:
        raise ValueError(f"retries must be between 0 and {MAX_RETRIES}, got {retries}")
    method: dict[str, Any] = {
        "name": [{"service": name} for name in (SERVICE_NAME, EVENT_SERVICE_NAME, CATALOG_SERVICE_NAME)]
    }
    if retries:
        method["retryPolicy"] = {
            "maxAttempts": retries + 1,
            # 20, 40, 80 ms, each ±20%: all of them fit into the default timeout.
            "initialBackoff": "0.02s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    service_config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        # A replica that says NOT_SERVING gets no calls while another one serves.
        "healthCheckConfig": {"serviceName": SERVICE_NAME},
        "methodConfig": [method],
    }
    return [
        ("grpc.service_config", json.dumps(service_config)),
        # Reconnecting after a second, grpc's default, would make every retry above fail fast on the same refusal.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def health_check(channel: Any) -> Any:
    """The method grpc.health.v1.Health/Check of a channel of either kind; ask it with `HEALTH_REQUEST`.

    Request and response have one field each, number 1: a string and an enumeration. The wrappers of protobuf look the
    same on the wire, so that the client needs no further package.
    """
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=Int32Value.FromString,
    )


def is_serving(response: Int32Value) -> bool:
    return response.value == _SERVING


def raise_unless_transient(error: grpc.RpcError) -> None:
    failure: Any = error
    if failure.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        raise translated(error) from error
