"""What holds for every answer: random catalogues, users, rules and stock, against an oracle that looks at items."""

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st

from engine.app.model import load_model
from engine.catalog.changes import Overlay
from engine.config.serving import EngineConfig
from engine.errors import DeadlineExceeded, RulesError
from engine.features.state import SeenItems, Session, UserRecord, UserState
from engine.request.clock import RequestClock, StageEstimates
from engine.request.model import ServingModel
from engine.request.pipeline import Pipeline
from engine.rules.load import parse_rules
from engine.rules.schema import Rules
from engine.stages.features import FetchFeatures
from engine.types import DegradedReason, Demographics, EventType, Recommendation, RecommendQuery, item_keys
from tests.conftest import Trained
from tests.engine.catalog.items import remove, stock, upsert
from tests.engine.request.test_pipeline import UnknownUsers
from tests.engine.rules.naive import matches

NOW_MS = 1_767_000_000_000
SURFACES = ("home", "category", "cart", "email")
# Chance has a large say here, so that it meets everything else.
CONFIG = EngineConfig.load(
    exploration={"share": 0.3}, cold_start={"rotation_share": 0.4}, catalog={"fresh_capacity": 64}
)
NEW = [f"new-{number}" for number in range(8)]


@pytest.fixture(scope="module")
def world(trained: Trained) -> dict[str, dict[str, Any]]:
    """The bundle's items by id, as plain dictionaries."""
    return {row["item_id"]: {"seller": None} | row for row in trained.dataset.items.iter_rows(named=True)}


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def selectors(items: list[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def some(name: str) -> st.SearchStrategy[dict[str, Any]]:
        values = sorted({item[name] for item in items if item[name]})
        return st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True).map(lambda found: {name: found})

    prices = st.floats(0, 200).map(lambda price: {"price": {"max": round(price, 2)}})
    ids = st.lists(st.sampled_from([*(item["item_id"] for item in items), *NEW]), min_size=1, max_size=40, unique=True)
    plain = st.one_of(some("category"), some("brand"), prices, ids.map(lambda found: {"item_ids": found}))
    return st.one_of(
        plain, plain.map(lambda one: {"not": one}), st.tuples(plain, plain).map(lambda two: two[0] | two[1])
    )


@st.composite
def rule_lists(draw: st.DrawFn, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(0, 5))):
        rule: dict[str, Any] = {"name": f"rule {number}", "action": draw(st.sampled_from(
            ("allow", "deny", "deny", "boost", "bury", "cap", "min_share", "pin", "slot")))}  # fmt: skip
        if draw(st.booleans()):
            rule["surfaces"] = draw(st.lists(st.sampled_from(SURFACES), min_size=1, unique=True))
        if draw(st.booleans()):
            rule["when"] = {draw(st.sampled_from(("country", "country_not"))): ["NO", "DE"]}
        if rule["action"] == "pin":
            rule["item_id"] = draw(st.sampled_from([items[number]["item_id"], NEW[number], "unknown"]))
        else:
            rule["items"] = draw(selectors(items))
        match rule["action"]:
            case "boost":
                rule["factor"] = draw(st.floats(1.1, 5))
            case "bury":
                rule["factor"] = draw(st.floats(0.1, 0.9))
            case "cap":
                rule |= {"by": draw(st.sampled_from(("category", "brand"))), "limit": draw(st.integers(1, 3))}
                if draw(st.booleans()):
                    rule["window"] = draw(st.integers(4, 10))
            case "min_share":
                rule["share"] = draw(st.floats(0.1, 0.5))
            case "pin" | "slot":
                rule["position"] = draw(st.integers(1, 12))
        found.append(rule)
    return found


def parsed(rules: list[dict[str, Any]]) -> Rules:
    # JSON is YAML, too.
    return parse_rules(json.dumps({"version": 1, "rules": rules}).encode(), "rules.yaml", SURFACES)


def applies(rule: dict[str, Any], query: RecommendQuery) -> bool:
    if query.surface not in rule.get("surfaces", SURFACES):
        return False
    when = rule.get("when", {})
    return query.country in when.get("country", [query.country]) and query.country not in when.get("country_not", [])


def may_be_shown(item: dict[str, Any], rules: list[dict[str, Any]], query: RecommendQuery) -> bool:
    if not item["in_stock"] or query.surface not in (item["surfaces"] or query.surface).split("|"):
        return False
    if any(rule["action"] == "deny" and matches(rule["items"], item) for rule in rules):
        return False
    allows = [rule for rule in rules if rule["action"] == "allow"]
    return not allows or any(matches(rule["items"], item) for rule in allows)


def draw_state(data: st.DataObject, model: ServingModel, seen: list[str]) -> UserState:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    schema = model.bundle.schema
    known = data.draw(st.sampled_from((None, 2, 50)))
    clicked = item_keys([*model.bundle.items.ids(rng.integers(0, len(model.bundle.items), 3)), *NEW[:2]])
    record = None if known is None else UserRecord(
        generation=model.bundle.manifest.generation,
        embedding=rng.normal(size=schema.embedding_dim).astype(np.float32),
        collaborative=rng.normal(size=schema.collaborative_dim).astype(np.float32),
        profile=rng.normal(size=len(schema.profile)).astype(np.float32),
        interaction_count=known,
        purchase_count=0,
        demographics=Demographics(),
    )  # fmt: skip
    session = Session(clicked, np.full(5, EventType.CLICK, np.uint8), np.full(5, NOW_MS - 1000))
    bought = SeenItems.of(item_keys(seen), EventType.PURCHASE, NOW_MS // 1000 - 86_400)
    return UserState(record, data.draw(st.sampled_from((session, Session.empty()))), bought)


# Without shrinking: an example costs a bundle's load, and finding the smallest one would take minutes.
@settings(
    deadline=None,
    max_examples=60,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_never_ineligible_never_short_never_twice(
    data: st.DataObject, trained: Trained, world: dict[str, dict[str, Any]], executor: ThreadPoolExecutor
) -> None:
    ids = list(world)
    rules = data.draw(rule_lists(list(world.values())))
    try:
        compiled = parsed(rules)
    except RulesError:
        reject()
    model = load_model(trained.bundles.current(), CONFIG, compiled)
    items = {item_id: dict(item) for item_id, item in world.items()}
    overlay = Overlay()
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    changed = rng.permutation(ids)[: data.draw(st.integers(0, len(ids)))].tolist()
    for item_id in changed:
        items[item_id]["in_stock"] = bool(rng.random() < 0.1)
        overlay.add([stock(item_id, items[item_id]["in_stock"])])
    for item_id in NEW[: data.draw(st.integers(0, len(NEW)))]:
        fields = {"category": items[ids[0]]["category"], "price": float(rng.integers(0, 100))}
        places = data.draw(st.lists(st.sampled_from(SURFACES), unique=True, max_size=2))
        overlay.add([upsert(item_id, surfaces=places, **fields)])
        items[item_id] = {"item_id": item_id, "brand": None, "seller": None, "attributes": None, "in_stock": True,
                          "surfaces": "|".join(places), **fields}  # fmt: skip
    for item_id in rng.permutation(ids)[: data.draw(st.integers(0, 20))].tolist():
        overlay.add([remove(item_id)])
        del items[item_id]
    model.catalogue.apply(overlay.since(0), overlay.sequence)

    seen, excluded = (rng.permutation(ids)[: data.draw(st.integers(0, 300))].tolist() for _ in range(2))
    query = RecommendQuery(
        "u", data.draw(st.sampled_from(SURFACES)), data.draw(st.integers(1, 60)), NOW_MS,
        country=data.draw(st.sampled_from(("", "NO", "US"))), exclude_item_ids=tuple(excluded),
        diversity_weight=data.draw(st.sampled_from((None, 0.0, 0.5))), debug=True,
    )  # fmt: skip
    pipeline = Pipeline(model, FetchFeatures(UnknownUsers(), 1.0, 1 << 20), CONFIG, executor)
    state = draw_state(data, model, seen)
    in_time = pipeline.answer(
        model, query, pipeline.experiments.assign(query), state, RequestClock(time.monotonic() + 60, StageEstimates())
    )
    late = answered_late(model, query, state)

    active = [rule for rule in rules if applies(rule, query)]
    allowed = {item_id for item_id, item in items.items() if may_be_shown(item, active, query)} - set(excluded)
    eligible = allowed - set(seen)
    assert in_time.degraded_reasons == ()
    assert late.degraded_reasons == (DegradedReason.BUDGET_EXHAUSTED,)
    for answer in (in_time, late):
        assert set(answer.item_ids) <= allowed
        assert len(set(answer.item_ids)) == len(answer.item_ids) == min(query.item_count, len(allowed))
        # What was bought comes back only where nothing else is left.
        again = set(answer.item_ids) & set(seen)
        assert len(again) == max(0, len(answer.item_ids) - len(eligible))
        assert set(answer.let_back_in) >= again
        assert ((answer.propensities > 0) & (answer.propensities <= 1)).all()
        assert_explained(answer, items)
        assert_as_ruled(answer, items, active, eligible)


def answered_late(model: ServingModel, query: RecommendQuery, state: UserState) -> Recommendation:
    """The answer where the user's state is known and no thread was free in time."""

    class Busy(Executor):
        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            late: Future[Any] = Future()
            late.set_exception(DeadlineExceeded("no thread in time"))
            return late

    class Known:
        async def fetch(self, user_id: str, generation: int) -> UserState:
            return state

    pipeline = Pipeline(model, FetchFeatures(Known(), 60.0, 1 << 20), CONFIG, Busy())
    return asyncio.run(pipeline.recommend(query, time.monotonic() + 60))


def assert_explained(answer: Recommendation, items: dict[str, dict[str, Any]]) -> None:
    assert answer.explanation is not None
    assert len(answer.explanation.items) == len(answer.item_ids)
    removed = dict(answer.explanation.removed)
    assert all(count > 0 for count in removed.values())
    for item_id, why in zip(answer.item_ids, answer.explanation.items, strict=True):
        assert why.rule_factor > 0
        assert item_id in items


def assert_as_ruled(
    answer: Recommendation, items: dict[str, dict[str, Any]], rules: list[dict[str, Any]], eligible: set[str]
) -> None:
    assert answer.explanation is not None
    relaxed = [why.relaxed for why in answer.explanation.items]
    slate = [items[item_id] for item_id in answer.item_ids]
    for rule in rules:
        match rule["action"]:
            case "pin" if rule["item_id"] in eligible and rule["position"] <= len(slate):
                assert answer.item_ids[rule["position"] - 1] == rule["item_id"]
            case "cap":
                groups = [item[rule["by"]] if matches(rule["items"], item) else None for item in slate]
                window = rule.get("window", len(slate))
                for start in range(max(1, len(slate) - window + 1)):
                    part = groups[start : start + window]
                    for group in set(part) - {None}:
                        places = [start + place for place, other in enumerate(part) if other == group]
                        assert len(places) <= rule["limit"] or any("cap" in relaxed[place] for place in places)
            case "min_share":
                members = sum(matches(rule["items"], item) for item in slate)
                enough = members >= int(rule["share"] * len(slate) + 1e-9)
                assert enough or any("min_share" in names for names in relaxed)


@pytest.mark.parametrize("interaction_count", [None, 50])
def test_rules_shape_the_slate(
    trained: Trained, world: dict[str, dict[str, Any]], executor: ThreadPoolExecutor, interaction_count: int | None
) -> None:
    shown = [item for item in world.values() if item["in_stock"] and "home" in (item["surfaces"] or "home").split("|")]
    categories = sorted({item["category"] for item in shown})
    rules: list[dict[str, Any]] = [
        {"name": "mixed", "action": "cap", "by": "category", "limit": 1, "window": 4, "items": {"price": {"min": 0}}},
        {"name": "one of each", "action": "cap", "by": "brand", "limit": 2, "items": {"price": {"min": 0}}},
        {"name": "ours", "action": "min_share", "items": {"category": categories[0]}, "share": 0.2},
        {"name": "campaign", "action": "pin", "item_id": shown[7]["item_id"], "position": 3},
        {"name": "unknown", "action": "pin", "item_id": "nothing like it", "position": 4},
        {"name": "second", "action": "slot", "items": {"category": categories[1]}, "position": 2},
        {"name": "loved", "action": "boost", "items": {"category": categories[2]}, "factor": 3.0},
    ]
    model = load_model(trained.bundles.current(), CONFIG, parsed(rules))
    pipeline = Pipeline(model, FetchFeatures(UnknownUsers(), 1.0, 1 << 20), EngineConfig.load(), executor)
    state = UserState.unknown()
    if interaction_count is not None:
        schema = model.bundle.schema
        state = UserState(
            UserRecord(
                generation=model.bundle.manifest.generation,
                embedding=np.array(model.bundle.item_vectors[0]),
                collaborative=np.zeros(schema.collaborative_dim, np.float32),
                profile=np.zeros(len(schema.profile), np.float32),
                interaction_count=interaction_count,
                purchase_count=0,
                demographics=Demographics(),
            ),
            Session.empty(),
            SeenItems.none(),
        )
    query = RecommendQuery("u", "home", 20, NOW_MS, debug=True)
    answer = pipeline.answer(
        model, query, pipeline.experiments.assign(query), state, RequestClock(time.monotonic() + 60, StageEstimates())
    )
    slate = [world[item_id] for item_id in answer.item_ids]
    assert len(slate) == 20
    assert slate[2]["item_id"] == shown[7]["item_id"]
    assert slate[1]["category"] == categories[1]
    assert sum(item["category"] == categories[0] for item in slate) >= 4
    assert_as_ruled(answer, world, rules, {item["item_id"] for item in shown})
    why = answer.explanation.items  # type: ignore[union-attr]
    # Enough items to choose from: nothing had to give way but for what the rules themselves put side by side.
    assert sum(bool(one.relaxed) for one in why) <= 2
    assert why[2].rules[-1] == "campaign"
    assert all(
        (one.rule_factor == 3.0) == (item["category"] == categories[2]) for one, item in zip(why, slate, strict=True)
    )
    if interaction_count is not None:
        assert why[1].rank_score is not None
        assert why[1].retrieval_score is not None


def test_a_pin_behind_the_end_of_a_short_slate_is_shown_and_explained(
    trained: Trained, world: dict[str, dict[str, Any]], executor: ThreadPoolExecutor
) -> None:
    few = sorted(item_id for item_id, item in world.items() if item["in_stock"] and not item["surfaces"])[:3]
    rules: list[dict[str, Any]] = [
        {"name": "only these", "action": "allow", "items": {"item_ids": few}},
        {"name": "far back", "action": "pin", "item_id": few[1], "position": 9},
    ]
    model = load_model(trained.bundles.current(), CONFIG, parsed(rules))
    pipeline = Pipeline(model, FetchFeatures(UnknownUsers(), 1.0, 1 << 20), CONFIG, executor)
    query = RecommendQuery("u", "home", 20, NOW_MS, debug=True)
    clock = RequestClock(time.monotonic() + 60, StageEstimates())
    answer = pipeline.answer(model, query, pipeline.experiments.assign(query), UserState.unknown(), clock)
    assert sorted(answer.item_ids) == few
    assert answer.explanation is not None
    why = dict(zip(answer.item_ids, answer.explanation.items, strict=True))
    assert why[few[1]].rules == ("only these", "far back")
    assert why[few[0]].rules == ("only these",)
