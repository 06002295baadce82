"""The one table, in both directions."""

import grpc
import pytest

from engine.errors import (
    AnotherTries,
    BundleError,
    ConfigError,
    DataError,
    DeadlineExceeded,
    DependencyUnavailable,
    EngineError,
    InvalidRequest,
    LogMismatch,
    Overloaded,
    PoisonMessage,
    RecordError,
    SnapshotNeeded,
)
from engine.rpc.status import MAX_TEXT_CHARACTERS, to_wire
from engine_client.status import STATUS_OF, from_wire

CALLERS_ERRORS = [
    InvalidRequest("user_id", "must not be empty"),
    DeadlineExceeded("too late"),
    Overloaded("too many"),
    DependencyUnavailable("no Redis"),
]


def test_every_engine_error_is_either_in_the_table_or_kept_inside() -> None:
    assert set(EngineError.__subclasses__()) == set(STATUS_OF) | {
        AnotherTries,
        ConfigError,
        DataError,
        BundleError,
        PoisonMessage,
        LogMismatch,
        RecordError,
        SnapshotNeeded,
    }


@pytest.mark.parametrize("error", CALLERS_ERRORS, ids=lambda error: type(error).__name__)
def test_there_and_back(error: EngineError) -> None:
    wire = to_wire(error, "r-1")
    back = from_wire(wire.code, wire.text, wire.metadata)

    assert type(back) is type(error)
    assert str(back) == str(error)


def test_field_and_reason_survive() -> None:
    wire = to_wire(InvalidRequest("exclude_item_ids[3]", "must not be empty: really"), "r-1")
    back = from_wire(wire.code, wire.text, wire.metadata)

    assert isinstance(back, InvalidRequest)
    assert (back.field, back.reason) == ("exclude_item_ids[3]", "must not be empty: really")


def test_a_subclass_goes_by_its_base() -> None:
    class RedisGone(DependencyUnavailable):
        pass

    assert to_wire(RedisGone("x"), "r").code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("error", [BundleError("/srv/secret"), EngineError("/srv/secret"), KeyError("/srv/secret")])
def test_everything_else_shows_the_request_id_alone(error: Exception) -> None:
    wire = to_wire(error, "r-1")

    assert (wire.code, wire.reason, wire.text) == (grpc.StatusCode.INTERNAL, "INTERNAL", "internal error (request r-1)")
    assert not any("secret" in str(value) for _, value in wire.metadata)


def test_a_long_text_is_cut_to_fit_the_headers() -> None:
    wire = to_wire(InvalidRequest("f", "x" * 100_000), "r")

    assert len(wire.text) == MAX_TEXT_CHARACTERS
    assert sum(len(value) for _, value in wire.metadata) < 4096


def test_a_transport_failure_goes_by_its_code() -> None:
    assert type(from_wire(grpc.StatusCode.UNAVAILABLE, "refused", None)) is DependencyUnavailable
    assert type(from_wire(grpc.StatusCode.DEADLINE_EXCEEDED, None, ())) is DeadlineExceeded
    assert type(from_wire(grpc.StatusCode.UNIMPLEMENTED, "no such method", ())) is EngineError
    assert type(from_wire(grpc.StatusCode.INVALID_ARGUMENT, "odd", ())) is InvalidRequest


def test_unreadable_details_hide_nothing() -> None:
    error = from_wire(grpc.StatusCode.INVALID_ARGUMENT, "odd", [("grpc-status-details-bin", b"\xff\xff\xff")])
    assert str(error) == "request: odd"
