"""Experiments over real sockets: what variants do to answers, and how each answer reaches the archive."""

import asyncio
import json
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prometheus_client import CollectorRegistry

from engine.app.processor import process
from engine.app.publish import publish_once
from engine.app.serve import running_server
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.contract.exposures import decode_exposure
from engine.errors import ConfigError, EngineError, InvalidRequest, RulesError
from engine.experiments.assign import Experiments
from engine.request.pipeline import Pipeline
from engine.rpc.metrics import ServerMetrics
from engine.stream.topics import EXPOSURES
from engine.types import EventType, RecommendQuery
from engine_client import AsyncRecommendationClient
from engine_client.v1 import recommendation_pb2 as pb
from tests.conftest import Trained
from tests.engine.test_serving import config_for
from tests.kafka import broker, own_topics, read_back

MODELS = {
    "name": "models",
    "surfaces": ["home"],
    "variants": [
        {"name": "control", "share": 0.4},
        {"name": "plain", "share": 0.1, "ranker": False},
        {"name": "same for all", "share": 0.1, "baseline": True},
        {"name": "other", "share": 0.1, "bundle": "other"},
        {"name": "far", "share": 0.1, "diversity_weight": 1.0},
        {"name": "unruled", "share": 0.1, "rules": "off"},
    ],
}


BOUGHT_ONCE = {"hide": {"purchase": "forever"}}

# Who has left a group without a word is missed after a second.
QUICK_GROUPS = {"session.timeout.ms": "1000", "heartbeat.interval.ms": "200"}


@pytest.fixture(scope="module")
def redis_home(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("experiments-redis")
    publish_once(trained.data, config_for(trained, home, seen=BOUGHT_ONCE))
    return home


def settings(trained: Trained, home: Path, **sections: Any) -> EngineConfig:
    base = config_for(trained, home)
    values = base.model_dump()
    for name, section in sections.items():
        values[name] = {**values[name], **section} if isinstance(section, dict) else section
    return EngineConfig(**values)


@asynccontextmanager
async def served(config: EngineConfig) -> AsyncIterator[AsyncRecommendationClient]:
    async with (
        running_server(config) as server,
        AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        await client.wait_until_serving()
        yield client


def known_users(trained: Trained) -> list[str]:
    """Those with history enough to be personalized."""
    lengths = trained.dataset.histories().lengths()
    return [name for name, length in zip(trained.dataset.users["user_id"], lengths, strict=True) if length >= 5]


def ids(response: pb.RecommendResponse) -> list[str]:
    return [item.item_id for item in response.items]


def variants(response: pb.RecommendResponse) -> dict[str, str]:
    return {one.experiment: one.variant for one in response.experiments}


async def test_answers_say_what_they_are_part_of_and_the_holdout_gets_what_is_popular(
    trained: Trained, redis_home: Path
) -> None:
    config = settings(trained, redis_home, holdout={"share": 0.3}, experiments=[MODELS], seen=BOUGHT_ONCE)
    experiments = Experiments(config)
    purchases = trained.dataset.interactions.event_types == EventType.PURCHASE
    hidden_from: set[str] = set()
    buyers = set(trained.dataset.users["user_id"][trained.dataset.interactions.users[purchases]])
    slates: dict[str, list[list[str]]] = {"baseline": [], "engine": []}
    async with served(config) as client:
        for user in known_users(trained)[:40]:
            response = await client.recommend(user, "home", debug=True)
            expected = experiments.assign(RecommendQuery(user, "home", 50, 0)).experiments
            assert variants(response) == {one.experiment: one.variant for one in expected}
            assert not any(one.overridden for one in response.experiments)
            held = variants(response)["holdout"] == "baseline"
            slates[variants(response)["holdout"]].append(ids(response))
            stages = {timing.stage for timing in response.debug.stages}
            assert len(response.items) == 50
            if held:
                assert len(response.experiments) == 1
                assert response.strategy == pb.STRATEGY_POPULARITY
                # The filters are the engine's: what they have bought is not shown again.
                if "seen" in {entry.reason for entry in response.debug.removed}:
                    hidden_from.add(user)
                assert "rank" not in stages
            elif variants(response).get("models") in ("control", "far"):
                assert response.strategy == pb.STRATEGY_PERSONALIZED
                assert "rank" in stages
    assert hidden_from
    assert hidden_from <= buyers
    assert len(slates["baseline"]) >= 5
    assert len(slates["engine"]) >= 10

    def likeness(lists: list[list[str]]) -> float:
        pairs = [(a, b) for place, a in enumerate(lists) for b in lists[place + 1 :]]
        return sum(len(set(a) & set(b)) for a, b in pairs) / len(pairs) / 50

    assert likeness(slates["baseline"]) > 1.5 * likeness(slates["engine"])


async def test_variants_change_answers_and_overrides_are_marked(
    trained: Trained, redis_home: Path, tmp_path: Path
) -> None:
    denied = trained.dataset.items["category"].drop_nulls()[0]
    items = trained.dataset.items.select("item_id", "category").drop_nulls()
    pinned = items.filter(pl.col("category") != denied)["item_id"][0]
    deny = {"name": "denied", "action": "deny", "items": {"category": denied}}
    first = {"name": "first", "action": "pin", "position": 1, "item_id": pinned}
    second = {"name": "second", "action": "pin", "position": 2, "item_id": pinned}
    rules, theirs = tmp_path / "rules.yaml", tmp_path / "theirs.yaml"
    rules.write_text(json.dumps({"version": 1, "rules": [deny, first]}))
    theirs.write_text(json.dumps({"version": 1, "rules": [deny, second]}))
    with_rules = {**MODELS, "variants": [*MODELS["variants"], {"name": "ruled", "share": 0.1, "rules": str(theirs)}]}
    config = settings(trained, redis_home, experiments=[with_rules], rules={"file": rules})
    forbidden = set(trained.dataset.items.filter(category=denied)["item_id"])
    user = known_users(trained)[0]

    async with served(config) as client:

        async def ask(variant: str) -> pb.RecommendResponse:
            response = await client.recommend(user, "home", debug=True, experiment_overrides={"models": variant})
            [one] = response.experiments
            assert (one.experiment, one.variant, one.overridden) == ("models", variant, True)
            assert not forbidden & set(ids(response))
            assert len(response.items) == 50
            return response

        control, plain, everybody = await ask("control"), await ask("plain"), await ask("same for all")
        assert all(item.explanation.HasField("rank_score") for item in control.items[1:])
        assert not any(item.explanation.HasField("rank_score") for item in plain.items)
        assert plain.strategy == pb.STRATEGY_PERSONALIZED
        assert not plain.degraded_reasons
        assert everybody.strategy == pb.STRATEGY_POPULARITY
        assert ids(await ask("far"))[1:] != ids(control)[1:]
        # The file's pin holds for everybody but those whose rules are off or others.
        assert control.items[0].item_id == everybody.items[0].item_id == pinned
        assert "first" in control.items[0].explanation.rules
        unruled = await ask("unruled")
        assert not any(item.source == pb.ITEM_SOURCE_PINNED for item in unruled.items)
        assert {entry.reason for entry in unruled.debug.removed} >= {"rule:denied"}
        ruled = await ask("ruled")
        assert [item.position for item in ruled.items if item.source == pb.ITEM_SOURCE_PINNED] == [2]

        for overrides, said in (({"model": "plain"}, "no experiment"), ({"models": "plane"}, "no variant 'plane'")):
            with pytest.raises(InvalidRequest, match=said) as refused:
                await client.recommend(user, "home", experiment_overrides=overrides)
            assert refused.value.field == "experiment_overrides[0]"


async def test_visitors_without_a_user_id_are_served_by_session(trained: Trained, redis_home: Path) -> None:
    config = settings(trained, redis_home, experiments=[{**MODELS, "surfaces": []}])
    async with served(config) as client:
        found = []
        for visit in range(8):
            first = await client.recommend("", "home", session_id=f"visit-{visit}", debug=True)
            again = await client.recommend("", "cart", session_id=f"visit-{visit}")
            assert variants(first) == variants(again)
            assert first.strategy == pb.STRATEGY_POPULARITY
            assert not first.debug.known_user
            assert len(first.items) == 50
            found.append(variants(first).get("models"))
        assert len(set(found)) > 1
        with pytest.raises(InvalidRequest, match="user_id: must not be empty"):
            await client.recommend("", "home")


async def test_a_rules_file_of_a_variant_may_not_decide_what_is_shown(
    trained: Trained, redis_home: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text('{"version": 1, "rules": [{"name": "x", "action": "deny", "items": {"category": "books"}}]}')
    experiment = {"name": "e", "variants": [{"name": "a", "share": 0.5, "rules": str(theirs)}]}
    with pytest.raises(ConfigError, match="'x' denies or allows"):
        await served(settings(trained, redis_home, experiments=[experiment])).__aenter__()
    theirs.write_text("version: one")
    with pytest.raises(RulesError, match=r"theirs\.yaml"):
        await served(settings(trained, redis_home, experiments=[experiment])).__aenter__()


async def test_a_bundle_that_a_variant_names_answers_once_it_is_there_and_good(
    trained: Trained, redis_home: Path, tmp_path: Path
) -> None:
    bundles = BundleStore(tmp_path / "bundles")
    original = shutil.copytree(trained.bundles.current(), bundles.directory / trained.bundles.current().name)
    bundles.point_to(original.name)
    config = settings(trained, redis_home, bundle={"directory": bundles.directory}, experiments=[MODELS])
    user = known_users(trained)[0]

    def copy_to(directory: Path) -> None:
        shutil.copytree(original, directory)
        manifest = json.loads((directory / "manifest.json").read_text())
        # Of another embedding space: records of its own have to be published for it.
        named = {"version": "other", "generation": manifest["generation"] + 1}
        (directory / "manifest.json").write_text(json.dumps({**manifest, **named}))

    async def ask(client: AsyncRecommendationClient, variant: str = "other") -> pb.RecommendResponse:
        return await client.recommend(user, "home", experiment_overrides={"models": variant})

    async with served(config) as client:
        missing = await ask(client)
        assert missing.bundle_version == original.name
        assert list(missing.degraded_reasons) == [pb.DEGRADED_REASON_VARIANT_BUNDLE_UNAVAILABLE]
        assert variants(missing) == {"models": "other"}
        copy_to(tmp_path / "aside")
        (tmp_path / "aside").rename(bundles.directory / "other")
        for _ in range(400):
            answer = await ask(client)
            if answer.bundle_version == "other":
                break
            await asyncio.sleep(0.05)
        assert answer.bundle_version == "other"
        assert not answer.degraded_reasons
        assert answer.strategy == pb.STRATEGY_POPULARITY
        assert await asyncio.to_thread(publish_once, trained.data, config) == trained.dataset.user_count
        assert (await ask(client)).strategy == pb.STRATEGY_PERSONALIZED
        assert (await ask(client, "control")).bundle_version == original.name
        # What is changed in the catalogue is changed in both.
        await client.update_inventory({answer.items[0].item_id: False})
        for _ in range(400):
            if answer.items[0].item_id not in ids(await ask(client)):
                break
            await asyncio.sleep(0.05)
        assert answer.items[0].item_id not in ids(await ask(client))
        await client.update_inventory({answer.items[0].item_id: True})

    ranker = bundles.directory / "other" / "ranker.onnx"
    ranker.write_bytes(ranker.read_bytes()[:-100])
    async with served(config) as client:
        refused = await ask(client)
    assert refused.bundle_version == original.name
    assert list(refused.degraded_reasons) == [pb.DEGRADED_REASON_VARIANT_BUNDLE_UNAVAILABLE]


@contextmanager
def processing(config: EngineConfig) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=process, args=(config, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


def archived(directory: Path) -> pl.DataFrame | None:
    files = sorted(directory.rglob("*.parquet"))
    return pl.read_parquet(files) if files else None


async def test_every_answer_is_in_the_archive_once_whoever_stops_in_between(
    trained: Trained, redis_home: Path, tmp_path: Path
) -> None:
    with broker(tmp_path / "kafka") as kafka:
        config = settings(
            trained,
            redis_home,
            kafka=own_topics(kafka) | {"delivery_timeout_ms": 10_000, "properties": QUICK_GROUPS},
            experiments=[MODELS],
            processor={
                "archive_directory": tmp_path / "archive" / "events", "archive_flush_s": 0.1, "fresh_users_per_s": 0,
                "log": "experiments",
            },
        )  # fmt: skip
        users = known_users(trained)
        responses: dict[str, pb.RecommendResponse] = {}
        started_ms = time.time_ns() // 1_000_000
        async with served(config) as client:
            for part in range(2):
                with processing(config):
                    for number in range(10):
                        user = users[number % len(users)]
                        response = await client.recommend(user, "home", item_count=7, device="tv", debug=True)
                        responses[response.request_id] = response
                    if part == 0:
                        refused = client.recommend(user, "nowhere")
                        with pytest.raises(InvalidRequest):
                            await refused
                    await asyncio.sleep(0.3)
        exposures = tmp_path / "archive" / "exposures"
        with processing(config):
            for _ in range(600):
                frame = await asyncio.to_thread(archived, exposures)
                if frame is not None and len(frame) >= len(responses):
                    break
                await asyncio.sleep(0.05)
    assert frame is not None
    assert sorted(frame["request_id"].to_list()) == sorted(responses)
    assert frame.select(pl.struct("partition", "offset").is_unique().all()).item()
    for row in frame.iter_rows(named=True):
        response = responses[row["request_id"]]
        assert row["item_ids"] == ids(response)
        assert row["scores"] == pytest.approx([item.score for item in response.items])
        assert row["propensities"] == pytest.approx([item.propensity for item in response.items])
        assert [f"ITEM_SOURCE_{name.upper()}" for name in row["sources"]] == [
            pb.ItemSource.Name(item.source) for item in response.items
        ]
        assert {one["experiment"]: one["variant"] for one in row["experiments"]} == variants(response)
        # The log has what the engine took, and not what the service did before and after.
        assert row["stages"] == [
            {"stage": timing.stage, "duration_ms": timing.duration_ms}
            for timing in response.debug.stages
            if timing.stage not in ("receive", "return", "convert")
        ]
        assert row["total_ms"] == row["stages"][-1]["duration_ms"]
        assert (row["device"], row["surface"], row["bundle_version"]) == ("tv", "home", response.bundle_version)
        assert started_ms <= row["served_ms"] <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("late", [True, False], ids=["late", "failing"])
async def test_requests_that_are_late_or_fail_are_logged_with_their_variants(
    late: bool, trained: Trained, redis_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    # Nothing is ready so soon.
    limits = {"request_timeout_ms": 0.01} if late else {}
    if not late:
        monkeypatch.setattr(Pipeline, "answer", fail)
    with broker(tmp_path / "kafka") as kafka:
        config = settings(
            trained, redis_home, kafka=own_topics(kafka), server=limits, holdout={"share": 0.5}
        )  # fmt: skip
        users = known_users(trained)[:8]
        async with (
            running_server(config) as server,
            AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
        ):
            await client.wait_until_serving()
            answers: dict[str, pb.RecommendResponse] = {}
            for user in users:
                if late:
                    answers[user] = await client.recommend(user, "home")
                else:
                    with pytest.raises(EngineError, match="internal error"):
                        await client.recommend(user, "home")
            # The caller's own mistakes are no failures.
            with pytest.raises(InvalidRequest):
                await client.recommend(users[0], "nowhere")
        keys = {user.encode() for user in users}
        messages = await asyncio.to_thread(read_back, kafka, keys, len(users), EXPOSURES)
    logged = {exposure.user_id: exposure for exposure in (decode_exposure(m.value() or b"") for m in messages)}
    assert len(messages) == len(logged) == len(users)
    experiments = Experiments(config)
    for user, exposure in logged.items():
        if late:
            assert exposure.error == ""
            assert list(exposure.item_ids) == [item.item_id for item in answers[user].items]
            assert len(exposure.item_ids) == 50
            assert pb.DEGRADED_REASON_BUDGET_EXHAUSTED in exposure.degraded_reasons
            assert exposure.degraded_reasons == answers[user].degraded_reasons
            assert exposure.stages[-2:] == ["fallback", "total"]
        else:
            assert exposure.error == "internal"
            assert not exposure.item_ids
        expected = experiments.assign(RecommendQuery(user, "home", 50, 0)).experiments
        assert {one.experiment: one.variant for one in exposure.experiments} == {
            one.experiment: one.variant for one in expected
        }


async def test_without_kafka_no_answer_fails_and_drops_are_counted(trained: Trained, redis_home: Path) -> None:

    registry = CollectorRegistry()
    config = settings(
        trained,
        redis_home,
        kafka={"brokers": "127.0.0.1:1", "delivery_timeout_ms": 100},
        exposures={"max_queued": 20, "delivery_timeout_s": 600.0},
    )
    async with (
        running_server(config, metrics=ServerMetrics(registry)) as server,
        AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        answers = [await client.recommend(user, "home") for user in known_users(trained)[:50]]
        assert all(len(answer.items) == 50 and not answer.degraded_reasons for answer in answers)
        for _ in range(400):
            drops = registry.get_sample_value("engine_exposure_drops_total", {"reason": "queue_full"})
            if drops == len(answers) - 20:
                break
            await asyncio.sleep(0.02)
        assert drops == len(answers) - 20
    assert registry.get_sample_value("engine_exposures_total") == 0


async def test_nothing_is_logged_where_it_is_off(trained: Trained, redis_home: Path, tmp_path: Path) -> None:
    with broker(tmp_path / "kafka") as kafka:
        config = settings(trained, redis_home, kafka=own_topics(kafka), exposures={"enabled": False})
        async with served(config) as client:
            await client.recommend("somebody", "home")
        assert await asyncio.to_thread(read_back, kafka, {b"somebody"}, 0, EXPOSURES) == []
