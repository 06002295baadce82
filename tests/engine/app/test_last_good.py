"""What a worker starts by when what is current does not verify."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.app.last_good import LastGood, first_model
from engine.app.serve import running_server
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.errors import AnotherTries, BundleError, DependencyUnavailable, EngineError, RulesError
from engine.request.model import ServingModel
from engine_client import AsyncRecommendationClient
from engine_client.v1 import recommendation_pb2 as pb
from tests.conftest import Trained
from tests.engine.rpc.conftest import until
from tests.engine.test_serving import config_for

GOOD = "version: 1\nrules:\n- {name: one, action: boost, factor: 1.5, items: {category: none}}\n"
OTHER = "version: 1\nrules: []\n"
BAD = "version: 1\nrules:\n- {name: one, action: boots}\n"


@pytest.fixture
def bundles(trained: Trained, tmp_path: Path) -> BundleStore:
    store = BundleStore(tmp_path / "bundles")
    for name in ("first", "second"):
        shutil.copytree(trained.bundles.current(), store.directory / name)
    store.point_to("first")
    return store


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "good"
    path.mkdir()
    return path


def settings(bundles: BundleStore, rules: Path) -> EngineConfig:
    return EngineConfig.load(bundle={"directory": bundles.directory}, rules={"file": rules})


def break_bundle(path: Path) -> bytes:
    """Segment a file of it short; returns what the file was."""
    whole = (path / "ranker.onnx").read_bytes()
    (path / "ranker.onnx").write_bytes(whole[:-100])
    return whole


def started(config: EngineConfig, directory: Path | None) -> tuple[LastGood, ServingModel]:
    """As a fresh worker starts, up to where it serves."""
    last_good = LastGood(directory)
    model = first_model(config, last_good)
    last_good.serving()
    return last_good, model


def names(model: ServingModel) -> list[str]:
    return [rule.name for rule in model.catalogue.rules.rules.rules]


def test_before_anything_has_served_a_start_that_fails_has_failed(
    bundles: BundleStore, rules: Path, directory: Path
) -> None:
    config = settings(bundles, rules)
    # Opened, but the worker ended before it served.
    first_model(config, LastGood(directory))
    rules.write_text(BAD)
    with pytest.raises(RulesError, match="boots"):
        started(config, directory)
    rules.write_text(GOOD)
    break_bundle(bundles.current())
    for where in (directory, None):
        with pytest.raises(BundleError, match=r"ranker\.onnx"):
            started(config, where)


def test_a_bundle_and_rules_that_do_not_verify_are_replaced_by_those_that_served_last(
    bundles: BundleStore, rules: Path, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(bundles, rules)
    last_good, model = started(config, directory)
    assert (model.bundle.path.name, names(model), last_good.in_use) == ("first", ["one"], set())
    rules.write_text(BAD)
    last_good, model = started(config, directory)
    assert (model.bundle.path.name, names(model), last_good.in_use) == ("first", ["one"], {"rules"})
    bundles.point_to("second")
    break_bundle(bundles.current())
    last_good, model = started(config, directory)
    assert (model.bundle.path.name, names(model), last_good.in_use) == ("first", ["one"], {"rules", "bundle"})
    assert "starting by the rules that was last served" in caplog.text
    assert "starting by the bundle that was last served" in caplog.text
    rules.write_text(OTHER)
    last_good, model = started(config, directory)
    assert (model.bundle.path.name, names(model), last_good.in_use) == ("first", [], {"bundle"})
    # What served by the rules of now keeps those, and no pointer was moved.
    rules.unlink()
    (bundles.directory / "current").unlink()
    last_good, model = started(config, directory)
    assert (model.bundle.path.name, names(model), last_good.in_use) == ("first", [], {"rules", "bundle"})
    assert not (bundles.directory / "current").exists()


def test_rules_that_clash_with_the_items_are_no_rules_to_start_by(
    bundles: BundleStore, rules: Path, directory: Path
) -> None:
    config = settings(bundles, rules)
    started(config, directory)
    item_id = first_model(config, LastGood(None)).bundle.items.ids(np.arange(1))[0]
    rules.write_text(
        f"version: 1\nrules:\n- {{name: all, action: deny, items: {{ids: ['{item_id}']}}}}\n"
        f"- {{name: it, action: pin, item: '{item_id}', position: 1}}\n"
    )
    last_good, model = started(config, directory)
    assert (names(model), last_good.in_use) == (["one"], {"rules"})


def test_nothing_good_is_left(bundles: BundleStore, rules: Path, directory: Path) -> None:
    config = settings(bundles, rules)
    started(config, directory)
    break_bundle(bundles.current())
    with pytest.raises(BundleError, match=r"ranker\.onnx"):
        started(config, directory)


def test_a_bundle_that_nobody_has_served_by_is_opened_by_one_worker_at_a_time(
    bundles: BundleStore, rules: Path, directory: Path
) -> None:
    config = settings(bundles, rules)
    busy: list[bool] = []
    started(config, directory)
    one, other = LastGood(directory, busy.append), LastGood(directory)
    second = bundles.directory / "second"
    with one.opening(second, config), pytest.raises(AnotherTries), other.opening(second, config):
        pytest.fail("both opened it")
    assert busy == [True, False]
    # What serves already may be opened by all at once.
    with one.opening(bundles.current()), other.opening(bundles.current()):
        pass
    one.serves(second.resolve())
    with one.opening(second), other.opening(second):
        pass


def test_a_bundle_that_ended_a_worker_is_tried_in_a_process_of_its_own(
    bundles: BundleStore, rules: Path, directory: Path
) -> None:
    config = settings(bundles, rules)
    started(config, directory)
    second = bundles.directory / "second"
    bundles.point_to("second")
    (directory / "trial").write_text(str(second))
    # A worker that starts does not wait for that.
    last_good, model = started(config, directory)
    assert (model.bundle.path.name, last_good.in_use) == ("first", {"bundle"})
    whole = break_bundle(second)
    with pytest.raises(BundleError, match=r"ranker\.onnx"), last_good.opening(second, config):
        pytest.fail("it was opened here")
    assert (directory / "trial").exists()
    (second / "ranker.onnx").write_bytes(whole)
    with last_good.opening(second, config):
        assert (directory / "trial").exists()
    assert not (directory / "trial").exists()
    # Nothing that ends it is left: it is opened as any other.
    assert started(config, directory)[1].bundle.path.name == "second"


def test_a_directory_that_takes_nothing_is_no_reason_not_to_serve(
    bundles: BundleStore, rules: Path, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(directory)
    last_good, _ = started(settings(bundles, rules), directory)
    assert not last_good.has_served
    assert "not kept for workers that start later" in caplog.text


async def test_it_serves_without_redis_by_what_was_last_good_and_is_whole_again(
    bundles: BundleStore, rules: Path, directory: Path, tmp_path: Path, trained: Trained
) -> None:
    sections: dict[str, dict[str, Any]] = {
        "redis": {"url": f"unix://{tmp_path}/redis/redis.sock"},
        "bundle": {"directory": bundles.directory, "poll_s": 0.05},
        "rules": {"file": rules, "poll_s": 0.05},
    }
    config = config_for(trained, tmp_path, **sections)
    first_model(config, before := LastGood(directory))
    with pytest.raises(DependencyUnavailable, match="Redis cannot be reached"):
        async with running_server(config, last_good=before):
            pass
    before.serving()
    rules.write_text(BAD)
    bundles.point_to("second")
    whole = break_bundle(bundles.current())
    last_good = LastGood(directory)
    async with (
        running_server(config, last_good=last_good) as server,
        AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        answer = await client.recommend("nobody", "home")
        assert len(answer.items) == 50
        assert list(answer.degraded_reasons) == [pb.DEGRADED_REASON_FEATURES_UNAVAILABLE]
        assert last_good.in_use == {"bundle", "rules"}
        rules.write_text(OTHER)
        (bundles.directory / "second" / "ranker.onnx").write_bytes(whole)
        await until(lambda: not last_good.in_use, 30)
        assert last_good.bundle().name == "second"
        assert last_good.rules(rules) == OTHER.encode()


def test_another_error_than_the_files_ends_the_start(bundles: BundleStore, rules: Path, directory: Path) -> None:
    config = settings(bundles, rules)
    started(config, directory)
    elsewhere = config.device.model_copy(update={"process": True, "process_socket": directory / "socket"})
    with pytest.raises(EngineError):
        started(config.model_copy(update={"device": elsewhere}), directory)
