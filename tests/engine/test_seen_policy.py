"""The seen policy through the codec, the pipeline and a real bundle: what may come again, and what must not."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.app.model import load_model
from engine.app.processor import limits_of
from engine.catalog.changes import Overlay
from engine.config.serving import EngineConfig
from engine.contract.requests import add_debug, to_response
from engine.features.seen import in_order, most_recent, pack_seen, read_seen
from engine.features.state import SeenItems, Session, UserRecord, UserState
from engine.kernels.membership import test_rows as rows_in
from engine.request.clock import RequestClock, StageEstimates
from engine.request.model import ServingModel
from engine.request.pipeline import Pipeline
from engine.stages.features import FetchFeatures
from engine.stream.state import view_state
from engine.types import (
    Demographics,
    EventType,
    Float32Array,
    Int64Array,
    ItemSource,
    Recommendation,
    RecommendQuery,
    UInt8Array,
    event_name,
    item_key,
)
from engine_client.v1 import recommendation_pb2 as pb
from tests.conftest import Trained
from tests.engine.catalog.items import stock
from tests.engine.request.test_pipeline import UnknownUsers
from tests.engine.stream.folding import StreamEvent, packed_after

NOW_S = 1_767_000_000
DAY_S = 86_400
KINDS = [kind for kind in EventType if kind not in (EventType.IMPRESSION, EventType.RETURN)]
# Chance and likeness have no say, so that the order is that of the scores.
PLAIN: dict[str, Any] = {"diversity_weight": 0.0, "duplicate_similarity": 2.0}

Met = tuple[str, EventType, int]


@pytest.fixture(scope="module")
def model(trained: Trained) -> ServingModel:
    return load_model(trained.bundles.current(), EngineConfig.load())


class Ids(list[str]):
    """Told in short where a test fails."""

    def __repr__(self) -> str:
        return f"{len(self)} ids"


@pytest.fixture(scope="module")
def ids(model: ServingModel) -> Ids:
    """What may be shown on the home surface."""
    rows = np.arange(len(model.bundle.items))
    return Ids(model.bundle.items.ids(rows[rows_in(model.catalogue.of_surface("home"), rows)]))


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def config_of(seen: dict[str, Any] | None = None, home: dict[str, Any] | None = None) -> EngineConfig:
    """seen: the policy of all surfaces. home: what differs there."""
    return EngineConfig.load(
        seen=seen or {},
        surfaces={"home": PLAIN | {"seen": home or {}}, "email": PLAIN},
        cold_start={"rotation_share": 0.0},
        exploration={"share": 0.0},
    )


def live(events: Sequence[Met], config: EngineConfig) -> SeenItems:
    """What a request reads of events that went through the processor, in this order."""
    stream = [
        StreamEvent(place, item_key(item_id), kind, (NOW_S - age_s) * 1000)
        for place, (item_id, kind, age_s) in enumerate(events)
    ]
    return view_state(packed_after(stream, limits=limits_of(config))).seen


def published(events: Sequence[Met], config: EngineConfig) -> SeenItems:
    """The same of events that were published."""
    keys = np.array([item_key(item_id) for item_id, _, _ in events], np.int64)
    kinds = np.array([kind for _, kind, _ in events], np.uint8)
    times = np.array([NOW_S - age_s for _, _, age_s in events], np.int64)
    everything = in_order(SeenItems(keys, kinds, times, np.ones(len(keys), np.float32)))
    return read_seen(pack_seen(most_recent(everything, config.redis.seen_limit, config.remembered_s)))


def user(model: ServingModel, seed: int) -> UserRecord:
    rng = np.random.default_rng(seed)
    schema = model.bundle.schema
    return UserRecord(
        generation=model.bundle.manifest.generation,
        embedding=rng.normal(size=schema.embedding_dim).astype(np.float32),
        collaborative=rng.normal(size=schema.collaborative_dim).astype(np.float32),
        profile=np.zeros(len(schema.profile), np.float32),
        interaction_count=50,
        purchase_count=1,
        demographics=Demographics(),
    )


def ask(
    model: ServingModel, executor: Executor, config: EngineConfig, seen: SeenItems, known: bool = True, **fields: Any
) -> Recommendation:
    pipeline = Pipeline(model, FetchFeatures(UnknownUsers(), 1.0, 1 << 20), config, executor)
    query = replace(RecommendQuery("u", "home", 20, NOW_S * 1000, debug=True), **fields)
    state = UserState(user(model, 1) if known else None, Session.empty(), seen)
    clock = RequestClock(time.monotonic() + 60, StageEstimates())
    return pipeline.answer(model, query, pipeline.experiments.assign(query), state, clock)


durations = st.sampled_from([0, 60, DAY_S, "30d", "forever"])
windows = st.fixed_dictionaries({}, optional={event_name(kind): durations for kind in KINDS})
policies = st.fixed_dictionaries(
    {}, optional={
        "hide": windows, "demote": windows, "recent_share": st.sampled_from([0.0, 0.2, 1.0]),
        "demotion": st.sampled_from([0.1, 1.0]), "free_impressions": st.sampled_from([0, 1, 5]),
    },
)  # fmt: skip


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seen=policies, home=policies)
def test_never_ineligible_never_short_and_nothing_hidden_comes_without_its_reason(
    data: st.DataObject, seen: dict[str, Any], home: dict[str, Any],
    model: ServingModel, executor: Executor, ids: Ids,
) -> None:  # fmt: skip
    config = config_of(seen, home)
    policy = config.seen_on("home")
    # In the end next to nothing may be shown: each of these is a matter of luck, and each can be all that is left.
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    left = rng.permutation(ids)[: data.draw(st.sampled_from([5, 30, len(ids)]))].tolist()
    excluded = sorted(set(ids) - set(left))
    some = data.draw(st.sampled_from([0, 5, 30, len(left)]))
    kinds = data.draw(st.lists(st.sampled_from(list(EventType)), min_size=1, max_size=6))
    ages = data.draw(st.lists(st.sampled_from([0, 59, 61, 5_000, DAY_S + 1, 31 * DAY_S]), min_size=1, max_size=6))
    events: list[Met] = [
        (item_id, kinds[rng.integers(len(kinds))], ages[rng.integers(len(ages))] + place)
        for _ in range(2)
        for place, item_id in enumerate(rng.permutation(left)[:some].tolist())
    ]
    half = len(events) // 2
    met = published([event for event in events[:half] if event[1] != EventType.IMPRESSION], config).joined(
        live(events[half:], config)
    )
    asked = data.draw(st.sampled_from([1, 10, 40]))
    answer = ask(
        model, executor, config, met, data.draw(st.booleans()), item_count=asked, exclude_item_ids=tuple(excluded),
        diversity_weight=data.draw(st.sampled_from([None, 0.5, 1.0])),
    )  # fmt: skip

    # By item, when the latest event that hides it happened, and what it was.
    hidden: dict[str, tuple[int, EventType]] = {}
    recent: set[str] = set()
    for item_id, kind, age_s in events:
        if kind not in KINDS:
            continue
        if age_s < getattr(policy.hide, event_name(kind)):
            hidden[item_id] = max(hidden.get(item_id, (-(10**10), kind)), (-age_s, kind))
        elif age_s < getattr(policy.demote, event_name(kind)):
            recent.add(item_id)
    recent -= hidden.keys()
    shown, fresh = set(answer.item_ids), set(left) - hidden.keys() - recent
    assert answer.degraded_reasons == ()
    assert shown <= set(left)
    assert len(shown) == len(answer.item_ids) == min(asked, len(left))

    again = shown & hidden.keys()
    assert len(again) == max(0, len(shown) - len(fresh) - len(recent))
    for item_id in again:
        assert answer.let_back_in[item_id] == event_name(hidden[item_id][1])
    # What is longest ago comes back first.
    if again and hidden.keys() - again:
        assert max(hidden[item_id][0] for item_id in again) <= min(
            hidden[item_id][0] for item_id in hidden.keys() - again
        )
    # Of what was just looked at there is no more than its share, unless there is nothing else.
    limit = int(policy.recent_share * asked + 1e-9)
    assert len(shown & recent) <= max(limit, len(shown) - len(fresh))
    late = shown & recent & answer.let_back_in.keys()
    assert set(answer.let_back_in) == again | late
    assert len((shown & recent) - late) <= limit
    by_source = {
        item_id for item_id, source in zip(answer.item_ids, answer.slate.sources, strict=True)
        if source == ItemSource.LET_BACK_IN
    }  # fmt: skip
    assert by_source == set(answer.let_back_in)
    assert answer.explanation is not None
    counts = {(action, kind): count for action, kind, count in answer.explanation.seen}
    of = {action: sum(count for (said, kind), count in counts.items() if said == action and kind != "impression")
          for action in ("hidden", "demoted", "let_back_in")}  # fmt: skip
    assert of == {"hidden": len(hidden) - len(again), "demoted": len(recent) - len(late),
                  "let_back_in": len(again) + len(late)}  # fmt: skip
    assert dict(answer.explanation.removed).get("seen", 0) == of["hidden"]


def test_by_default_purchases_are_hidden_and_looking_at_things_hides_nothing(
    model: ServingModel, executor: Executor, ids: Ids
) -> None:
    config = config_of()
    best = ask(model, executor, config, SeenItems.none()).item_ids
    for seen in (live, published):
        looked_at: list[Met] = [(item_id, kind, DAY_S) for item_id in best[:10] for kind in KINDS
                                if kind != EventType.PURCHASE]  # fmt: skip
        assert ask(model, executor, config, seen(looked_at, config)).item_ids == best
        bought: list[Met] = [(best[0], EventType.PURCHASE, 29 * DAY_S), (best[1], EventType.PURCHASE, 31 * DAY_S)]
        answer = ask(model, executor, config, seen(bought, config))
        assert answer.item_ids[:19] == best[1:]
        assert answer.explanation is not None
        assert answer.explanation.seen == (("hidden", "purchase", 1),)


def test_a_shop_where_all_was_bought_is_never_blank(model: ServingModel, executor: Executor, ids: Ids) -> None:
    config = config_of()
    shop, rest = ids[:20], tuple(ids[20:])
    bought: list[Met] = [(item_id, EventType.PURCHASE, 1000 * (20 - place)) for place, item_id in enumerate(shop)]
    answer = ask(model, executor, config, live(bought, config), item_count=8, exclude_item_ids=rest)
    # The first ones bought come back, in their order.
    assert list(answer.item_ids) == shop[:8]
    assert answer.let_back_in == dict.fromkeys(shop[:8], "purchase")
    response = to_response(answer, request_id="r")
    assert all(item.source == pb.ITEM_SOURCE_LET_BACK_IN for item in response.items)
    assert {item.let_back_in for item in response.items} == {"purchase"}
    add_debug(response, answer, answer.timings)
    assert [(one.action, one.event_type, one.count) for one in response.debug.seen] == [
        ("hidden", "purchase", 12), ("let_back_in", "purchase", 8),
    ]  # fmt: skip
    assert [(one.reason, one.count) for one in response.debug.removed if one.reason == "seen"] == [("seen", 12)]


def test_what_sells_out_under_way_is_not_let_back_in(model: ServingModel, executor: Executor, ids: Ids) -> None:
    config, shop, overlay = config_of(), ids[:20], Overlay()
    bought: list[Met] = [(item_id, EventType.PURCHASE, 1000 * (20 - place)) for place, item_id in enumerate(shop)]

    def sell(in_stock: bool) -> None:
        overlay.add([stock(shop[0], in_stock)])
        model.catalogue.apply(overlay.since(0), overlay.sequence)

    class SellsOut:
        dim, item_count = model.index.dim, model.index.item_count

        def search(self, query: Float32Array, k: int, eligible: UInt8Array) -> tuple[Int64Array, Float32Array]:
            sell(False)
            return model.index.search(query, k, eligible)

    try:
        answer = ask(
            replace(model, index=SellsOut()), executor, config, live(bought, config), item_count=8,
            exclude_item_ids=tuple(ids[20:]),
        )  # fmt: skip
    finally:
        sell(True)
    assert list(answer.item_ids) == shop[1:9]


def test_groceries_are_bought_again(model: ServingModel, executor: Executor) -> None:
    config = config_of(home={"hide": {"purchase": 0}})
    best = ask(model, executor, config, SeenItems.none()).item_ids
    bought: list[Met] = [(best[0], EventType.PURCHASE, DAY_S)]
    assert ask(model, executor, config, live(bought, config)).item_ids == best
    # The other surface has the usual policy.
    elsewhere = ask(model, executor, config, live(bought, config), surface="email")
    assert best[0] not in elsewhere.item_ids


def test_what_was_just_looked_at_does_not_fill_the_slate(model: ServingModel, executor: Executor) -> None:
    config = config_of(seen={"demotion": 1.0})
    best = ask(model, executor, config, SeenItems.none(), item_count=40).item_ids
    looked_at: list[Met] = [(item_id, EventType.VIEW, 60) for item_id in best]
    answer = ask(model, executor, config, live(looked_at, config))
    # Four of twenty, the best ones; all others are new.
    assert [item_id for item_id in answer.item_ids if item_id in best] == list(best[:4])
    assert not answer.let_back_in
    # Half an hour later it is forgotten.
    later = [(item_id, kind, 1_801) for item_id, kind, _ in looked_at]
    assert ask(model, executor, config, live(later, config)).item_ids == best[:20]


@pytest.mark.parametrize("known", [True, False])
def test_demoted_items_stand_behind_fresh_ones_of_similar_relevance(
    model: ServingModel, executor: Executor, known: bool
) -> None:
    config = config_of(seen={"demotion": 0.05})
    before = ask(model, executor, config, SeenItems.none(), known)
    score = dict(zip(before.item_ids, before.slate.scores.tolist(), strict=True))
    best = before.item_ids[0]
    shown_often: list[Met] = [(best, EventType.IMPRESSION, 100 - place) for place in range(60)]
    for events in ([(best, EventType.CLICK, 60)], shown_often):
        answer = ask(model, executor, config, live(events, config), known)
        for item_id, why, new in zip(
            answer.item_ids, answer.explanation.items, answer.slate.scores.tolist(), strict=True  # type: ignore[union-attr]
        ):  # fmt: skip
            if item_id == best:
                assert why.seen_factor == pytest.approx(0.05)
                assert new == pytest.approx(score[best] * why.seen_factor, rel=1e-5)
            else:
                assert why.seen_factor == 1.0
        similar = [item_id for item_id in before.item_ids[1:] if score[item_id] > 0.06 * score[best]]
        assert similar
        order = list(answer.item_ids)
        assert all(order.index(item_id) < (order.index(best) if best in order else 20) for item_id in similar)


def test_fatigue_needs_many_showings_fades_and_ends_with_interest(model: ServingModel, executor: Executor) -> None:
    config = config_of()
    best = ask(model, executor, config, SeenItems.none()).item_ids

    def factor(count: int, age_s: int, *more: Met) -> float:
        shown: list[Met] = [(best[0], EventType.IMPRESSION, age_s + count - place) for place in range(count)]
        answer = ask(model, executor, config, live([*shown, *more], config), item_count=600)
        assert answer.explanation is not None
        why = dict(zip(answer.item_ids, answer.explanation.items, strict=True))
        return why[best[0]].seen_factor

    assert factor(5, 0) == 1.0
    falling = [factor(count, 0) for count in (6, 10, 20, 200)]
    assert falling == sorted(falling, reverse=True)
    assert falling[1] == pytest.approx(0.5, abs=0.01)
    assert falling[-1] == pytest.approx(0.05)
    fading = [factor(20, days * DAY_S) for days in (0, 1, 2)]
    assert fading == sorted(fading)
    assert fading[-1] == 1.0
    assert factor(20, DAY_S, (best[0], EventType.CLICK, DAY_S - 10)) == 1.0
    # Others' showings are their own.
    assert factor(2, 0, *((best[1], EventType.IMPRESSION, 100 - place) for place in range(50))) == 1.0


def test_showings_push_out_nothing_and_reach_no_session(model: ServingModel) -> None:
    config = config_of()
    bought: list[Met] = [("bought", EventType.PURCHASE, 100_000), ("clicked", EventType.CLICK, 50)]
    shown: list[Met] = [(f"shown-{place}", EventType.IMPRESSION, 40_000 - place) for place in range(20_000)]
    stream = [
        StreamEvent(place, item_key(item_id), kind, (NOW_S - age_s) * 1000)
        for place, (item_id, kind, age_s) in enumerate([*bought, *shown])
    ]
    state = view_state(packed_after(stream, limits=limits_of(config)))
    assert state.session.item_keys.tolist() == [item_key("bought"), item_key("clicked")]
    kinds = state.seen.event_types
    assert (kinds == EventType.IMPRESSION).sum() == config.processor.impression_items
    assert state.seen.item_keys[kinds == EventType.PURCHASE].tolist() == [item_key("bought")]
