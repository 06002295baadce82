"""Recommendation (the engine's answer) to RecommendResponse (the API's message)."""

from collections.abc import Sequence

from engine.types import Explanation, Recommendation, StageTiming
from engine.v1 import recommendation_pb2 as pb


def to_response(recommendation: Recommendation, *, request_id: str) -> pb.RecommendResponse:
    """The answer as a message; the types' enum codes are the API's, so that nothing is looked up.

    Args:
        recommendation: item_ids and slate of one length, in slate order.
        request_id: echoed.

    Raises:
        ValueError: item_ids and slate differ in length.

    Cost: about 20 µs for 50 items.
    """
    slate = recommendation.slate
    # tolist() makes Python numbers in one pass; indexing NumPy scalars one by one costs several times as much.
    scores, sources, propensities = slate.scores.tolist(), slate.sources.tolist(), recommendation.propensities.tolist()
    response = pb.RecommendResponse(
        strategy=recommendation.strategy.value,  # type: ignore[arg-type]  # enums are ints at run time
        bundle_version=recommendation.bundle_version,
        degraded_reasons=[reason.value for reason in recommendation.degraded_reasons],  # type: ignore[misc]
        request_id=request_id,
    )
    for assignment in recommendation.experiments:
        response.experiments.add(
            experiment=assignment.experiment, variant=assignment.variant, overridden=assignment.overridden
        )
    add_item = response.items.add
    for position, (item_id, score, source, propensity) in enumerate(
        zip(recommendation.item_ids, scores, sources, propensities, strict=True), start=1
    ):
        # Setting fields takes half the time of the constructor's keywords.
        item = add_item()
        item.item_id = item_id
        item.score = score
        item.position = position
        item.source = source
        item.propensity = propensity
    if recommendation.let_back_in:
        for item in response.items:
            item.let_back_in = recommendation.let_back_in.get(item.item_id, "")
    return response


def add_debug(response: pb.RecommendResponse, recommendation: Recommendation, stages: Sequence[StageTiming]) -> None:
    """Counts, what the stages took, and why each item is there, to the response that was made of a recommendation."""
    response.debug.CopyFrom(
        pb.DebugInfo(
            stages=[pb.StageTiming(stage=timing.stage, duration_ms=timing.duration_ms) for timing in stages],
            candidate_count=recommendation.candidate_count,
            known_user=recommendation.known_user,
            interaction_count=recommendation.interaction_count,
        )
    )
    _explain(response, recommendation.explanation)


def _explain(response: pb.RecommendResponse, explanation: Explanation | None) -> None:
    if explanation is None:
        return
    response.debug.removed.extend(pb.RemovalCount(reason=reason, count=count) for reason, count in explanation.removed)
    response.debug.seen.extend(
        pb.SeenCount(action=action, event_type=event_type, count=count)
        for action, event_type, count in explanation.seen
    )
    for item, why in zip(response.items, explanation.items, strict=True):
        item.explanation.CopyFrom(
            pb.ItemExplanation(
                retrieval_score=why.retrieval_score,
                rank_score=why.rank_score,
                rule_factor=why.rule_factor,
                rules=why.rules,
                diversity_penalty=why.diversity_penalty,
                relaxed=why.relaxed,
                seen_factor=why.seen_factor,
            )
        )
