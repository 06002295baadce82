"""Every bad input over the wire: the code, the reason and the field; and what good input becomes."""

import time
from collections.abc import Callable

import grpc
import pytest

from engine.contract.limits import TIME_END_S
from engine.contract.requests import MAX_EXCLUDED_ITEMS, to_query
from engine.errors import InvalidRequest
from engine.rpc.server import Server
from engine.types import Demographics
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc
from tests.engine.rpc.conftest import refusal_of
from tests.engine.rpc.recommender import SteeredRecommender

SURFACES = frozenset({"home", "cart"})
Change = Callable[[pb.RecommendRequest], None]


def request_with(change: Change) -> pb.RecommendRequest:
    request = pb.RecommendRequest(user_id="u1", surface="home")
    change(request)
    return request


def setting(path: str, value: object) -> Change:
    """Sets request.<path>, a dotted path."""

    def change(request: pb.RecommendRequest) -> None:
        target, _, name = path.rpartition(".")
        setattr(getattr(request, target) if target else request, name, value)

    return change


def excluding(item_ids: list[str]) -> Change:
    return lambda request: request.exclude_item_ids.extend(item_ids)


def overriding(*pairs: tuple[str, str]) -> Change:
    def change(request: pb.RecommendRequest) -> None:
        for experiment, variant in pairs:
            request.experiment_overrides.add(experiment=experiment, variant=variant)

    return change


def at(seconds: int, nanos: int = 0) -> Change:
    def change(request: pb.RecommendRequest) -> None:
        request.context.time.seconds = seconds
        request.context.time.nanos = nanos

    return change


BAD = [
    ("user_id", setting("user_id", ""), "empty"),
    ("user_id", setting("user_id", "x" * 257), "256 bytes"),
    ("user_id", setting("user_id", "é" * 129), "got 258"),
    ("user_id", setting("user_id", "a\x00b"), "control"),
    ("user_id", setting("user_id", "a\x9fb"), "control"),
    ("surface", setting("surface", ""), "empty"),
    ("surface", setting("surface", "s" * 65), "64 bytes"),
    ("surface", setting("surface", "nowhere"), "cart, home"),
    ("item_count", setting("item_count", 0), "got 0"),
    ("item_count", setting("item_count", -1), "got -1"),
    ("item_count", setting("item_count", 201), "1 and 200"),
    ("context.time", at(-1), "1970 to 2100"),
    ("context.time", at(TIME_END_S), "1970 to 2100"),
    ("context.time", at(1_700_000_000_000), "1970 to 2100"),
    ("context.time", at(0, -1), "nanos"),
    ("context.time", at(0, 1_000_000_000), "nanos"),
    ("context.device", setting("context.device", "d" * 65), "64 bytes"),
    ("context.country", setting("context.country", "c" * 65), "64 bytes"),
    ("context.country", setting("context.country", "D\nE"), "control"),
    ("demographics.age_group", setting("demographics.age_group", "a" * 65), "64 bytes"),
    ("demographics.location", setting("demographics.location", "l" * 65), "64 bytes"),
    ("demographics.signup_source", setting("demographics.signup_source", "s" * 65), "64 bytes"),
    ("exclude_item_ids", excluding([f"i{n}" for n in range(1001)]), "got 1001"),
    ("exclude_item_ids", excluding([f"item-{n:030}" for n in range(10_000)]), "got 10000"),
    ("exclude_item_ids[3]", excluding(["a", "b", "c", "", "e"]), "empty"),
    ("exclude_item_ids[2]", excluding(["a", "b", "x" * 257]), "256 bytes"),
    ("exclude_item_ids[0]", excluding(["é" * 129]), "got 258"),
    ("exclude_item_ids[1]", excluding(["a", "b\x7f"]), "control"),
    ("diversity_weight", setting("diversity_weight", -0.01), "got -0.01"),
    ("diversity_weight", setting("diversity_weight", 1.01), "got 1.01"),
    ("diversity_weight", setting("diversity_weight", float("nan")), "NaN"),
    ("diversity_weight", setting("diversity_weight", float("inf")), "inf"),
    ("diversity_weight", setting("diversity_weight", float("-inf")), "-inf"),
    ("request_id", setting("request_id", "r" * 257), "256 bytes"),
    ("request_id", setting("request_id", "r\n"), "control"),
    ("session_id", setting("session_id", "s" * 257), "256 bytes"),
    ("session_id", setting("session_id", "s\n"), "control"),
    ("experiment_overrides", overriding(*((f"e{n}", "v") for n in range(17))), "got 17"),
    ("experiment_overrides[1].experiment", overriding(("e", "v"), ("", "v")), "empty"),
    ("experiment_overrides[0].variant", overriding(("e", "")), "empty"),
    ("experiment_overrides[0].experiment", overriding(("e" * 65, "v")), "64 bytes"),
    ("experiment_overrides[2]", overriding(("e", "v"), ("f", "v"), ("e", "w")), "'e' is there twice"),
]


@pytest.mark.parametrize(("field", "change", "reason"), BAD, ids=[f"{field}: {reason}" for field, _, reason in BAD])
async def test_bad_input_is_refused_with_field_and_reason(
    field: str,
    change: Change,
    reason: str,
    stub: pb_grpc.RecommendationServiceStub,
    recommender: SteeredRecommender,
) -> None:
    refusal = await refusal_of(stub.Recommend(request_with(change), timeout=10))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.info.reason == "INVALID_REQUEST"
    assert refusal.info.domain == "engine.v1"
    assert refusal.info.metadata["field"] == field
    assert refusal.fields == [field]
    assert reason in refusal.bad_request.field_violations[0].description
    assert refusal.text.startswith(f"{field}: ")
    assert recommender.queries == []


async def test_every_field_reaches_the_engine(
    stub: pb_grpc.RecommendationServiceStub, recommender: SteeredRecommender
) -> None:
    request = pb.RecommendRequest(
        user_id="us er-é\u200d",
        surface="cart",
        item_count=200,
        context=pb.Context(device="tv", country="DE"),
        demographics=pb.Demographics(age_group="25-34", location="Ulm", signup_source="ad"),
        exclude_item_ids=["a", "a", "日本"],
        diversity_weight=0.5,
        request_id="r-1",
        debug=True,
    )
    request.context.time.FromMilliseconds(1_700_000_000_123)
    await stub.Recommend(request, timeout=10)

    (query,) = recommender.queries
    assert (query.user_id, query.surface, query.item_count) == ("us er-é\u200d", "cart", 200)
    assert (query.device, query.country, query.time_ms) == ("tv", "DE", 1_700_000_000_123)
    assert query.demographics == Demographics("25-34", "Ulm", "ad")
    assert query.exclude_item_ids == ("a", "a", "日本")
    assert (query.diversity_weight, query.request_id, query.debug) == (0.5, "r-1", True)


def test_absent_fields_get_their_defaults() -> None:
    before_ms = time.time_ns() // 1_000_000
    query = to_query(pb.RecommendRequest(user_id="u", surface="home"), SURFACES)

    assert query.item_count == 50
    assert before_ms <= query.time_ms <= time.time_ns() // 1_000_000
    assert query.diversity_weight is None
    assert query.exclude_item_ids == ()
    assert query.demographics == Demographics()
    assert len(query.request_id) == 32


@pytest.mark.parametrize(
    "change",
    [
        setting("user_id", "x" * 256),
        setting("user_id", "日" * 85),
        setting("item_count", 1),
        setting("diversity_weight", 0.0),
        setting("diversity_weight", 1.0),
        at(0),
        at(TIME_END_S - 1, 999_999_999),
        excluding(["é" * 128] * MAX_EXCLUDED_ITEMS),
        excluding(["zero\u200dwidth"]),
        setting("context.device", "d" * 64),
    ],
)
def test_the_limits_themselves_are_allowed(change: Change) -> None:
    to_query(request_with(change), SURFACES)


def test_an_absent_time_and_the_epoch_differ() -> None:
    assert to_query(request_with(at(0)), SURFACES).time_ms == 0


def test_a_long_list_of_surfaces_is_cut() -> None:
    surfaces = frozenset(f"surface-{n:03}" for n in range(100))
    with pytest.raises(InvalidRequest, match="surface-019 and 80 more"):
        to_query(request_with(lambda _: None), surfaces)


async def test_a_message_above_the_size_limit_is_refused(
    server: Server, stub: pb_grpc.RecommendationServiceStub
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Recommend(request_with(excluding(["x" * 256] * 5000)), timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_visitor_needs_no_user() -> None:
    query = to_query(pb.RecommendRequest(session_id="visit", surface="home"), SURFACES)
    assert (query.user_id, query.session_id, query.unit_id) == ("", "visit", "visit")
    both = to_query(pb.RecommendRequest(user_id="u1", session_id="visit", surface="home"), SURFACES)
    assert both.unit_id == "u1"


def test_overrides_reach_the_engine_in_their_order() -> None:
    query = to_query(request_with(overriding(("e", "v"), ("f", "w"))), SURFACES)
    assert query.experiment_overrides == (("e", "v"), ("f", "w"))
