"""The Python client of the personalization engine.

    with RecommendationClient("localhost:50051") as client:
        response = client.recommend("u42", "home", item_count=10)

The generated messages are in engine_client.v1.
"""

import importlib
from typing import TYPE_CHECKING, Any

from engine_client.errors import DeadlineExceeded, DependencyUnavailable, EngineError, InvalidRequest, Overloaded
from engine_client.types import Demographics, Priority

if TYPE_CHECKING:
    from engine_client.client import AsyncRecommendationClient, RecommendationClient
    from engine_client.requests import EventFields, ReportFields, RequestFields, build_event, build_request

__all__ = [
    "AsyncRecommendationClient",
    "DeadlineExceeded",
    "Demographics",
    "DependencyUnavailable",
    "EngineError",
    "EventFields",
    "InvalidRequest",
    "Overloaded",
    "Priority",
    "RecommendationClient",
    "ReportFields",
    "RequestFields",
    "build_event",
    "build_request",
]


def __getattr__(name: str) -> Any:
    """Import the clients and the builders at their first use: the errors alone need no gRPC."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "client" if name.endswith("Client") else "requests"
    return getattr(importlib.import_module(f"engine_client.{module}"), name)
