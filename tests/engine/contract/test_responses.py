"""The answer as a message, and the codes that both sides share."""

import dataclasses
from enum import IntEnum
from typing import Any

import pytest

from engine.contract.requests import add_debug, to_response
from engine.types import DegradedReason, ExperimentAssignment, ItemSource, RecommendQuery, Strategy
from engine_client.v1 import recommendation_pb2 as pb
from tests.engine.rpc.recommender import answer

QUERY = RecommendQuery(user_id="u", surface="home", item_count=50, time_ms=0)


@pytest.mark.parametrize(
    ("mirror", "enum", "prefix"),
    [
        (Strategy, pb.Strategy, "STRATEGY_"),
        (ItemSource, pb.ItemSource, "ITEM_SOURCE_"),
        (DegradedReason, pb.DegradedReason, "DEGRADED_REASON_"),
    ],
)
def test_the_enums_mirror_the_api_by_number(mirror: type[IntEnum], enum: Any, prefix: str) -> None:
    ours = {prefix + member.name: member.value for member in mirror}
    assert ours | {prefix + "UNSPECIFIED": 0} == dict(enum.items())


def test_items_keep_slate_order() -> None:
    recommendation = answer(QUERY)
    response = to_response(recommendation, request_id="r")

    assert [item.item_id for item in response.items] == list(recommendation.item_ids)
    assert [item.position for item in response.items] == list(range(1, 51))
    assert [item.score for item in response.items] == recommendation.slate.scores.tolist()
    assert {item.source for item in response.items} == {pb.ITEM_SOURCE_RETRIEVAL}
    assert (response.strategy, response.bundle_version) == (pb.STRATEGY_PERSONALIZED, "bundle-7")
    assert list(response.degraded_reasons) == [pb.DEGRADED_REASON_RANKING_SKIPPED]
    assert response.request_id == "r"
    assert not response.HasField("debug")


def test_debug_carries_the_stages() -> None:
    recommendation = answer(QUERY)
    response = to_response(recommendation, request_id="r")
    assert not response.HasField("debug")
    add_debug(response, recommendation, recommendation.timings)
    debug = response.debug

    assert [(stage.stage, stage.duration_ms) for stage in debug.stages] == [("retrieve", 1.25), ("rank", 2.5)]
    assert (debug.candidate_count, debug.known_user, debug.interaction_count) == (1000, True, 12)


def test_ids_that_do_not_match_the_slate_are_a_bug() -> None:
    torn = dataclasses.replace(answer(QUERY), item_ids=("only one",))
    with pytest.raises(ValueError, match="zip"):
        to_response(torn, request_id="r")


def test_experiments_are_said_in_their_order() -> None:
    assigned = (ExperimentAssignment("e", "v"), ExperimentAssignment("f", "w", overridden=True))
    response = to_response(dataclasses.replace(answer(QUERY), experiments=assigned), request_id="r")
    assert [(one.experiment, one.variant, one.overridden) for one in response.experiments] == [
        ("e", "v", False),
        ("f", "w", True),
    ]
