"""`engine bundles` on real bundles: bringing one in, going back, and refusing what is not fit to serve."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.store import RedisFeatureStore
from engine.app import bundle_check
from engine.app.publish import publish_once
from engine.bundle.manifest import MANIFEST, file_entry
from engine.bundle.store import BundleStore
from engine.cli.bundles import check_and_offer
from engine.cli.main import app
from engine.config.serving import EngineConfig
from engine.errors import BundleError
from tests.conftest import Trained


def run(*arguments: str) -> int:
    """The exit code: 0 also where the command returns."""
    return app(["bundles", *arguments], standalone_mode=False) or 0


def altered(source: Path, target: Path, file: str, change: Callable[[Path], None]) -> Path:
    """A bundle with another file in it, whose hash the manifest has: only opening it shows what is wrong."""
    shutil.copytree(source, target)
    change(target / file)
    manifest = json.loads((target / MANIFEST).read_text())
    manifest["files"][file] = file_entry(target / file).model_dump()
    (target / MANIFEST).write_text(json.dumps(manifest))
    return target


def constant_ranker(path: Path) -> None:
    """A graph of the right form, whose answer is the same for every item."""
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.output[:] = ["click_before" if name == "click" else name for name in node.output]
    model.graph.initializer.append(onnx.helper.make_tensor("nothing", onnx.TensorProto.FLOAT, [1], [0.0]))
    model.graph.initializer.append(onnx.helper.make_tensor("half", onnx.TensorProto.FLOAT, [1], [0.5]))
    model.graph.node.append(onnx.helper.make_node("Mul", ["click_before", "nothing"], ["none"]))
    model.graph.node.append(onnx.helper.make_node("Add", ["none", "half"], ["click"]))
    onnx.save(model, str(path))


def nan_vectors(path: Path) -> None:
    table = np.load(path)
    table[:, 0] = np.nan
    np.save(path, table)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_bundle_is_brought_in_and_left_again(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version, bundles = trained.bundles.current().name, str(tmp_path / "bundles")
    run("list", "--bundles", bundles)
    assert capsys.readouterr().out == ""
    run("add", str(trained.bundles.directory), "--bundles", bundles, "--keep", "2")
    assert capsys.readouterr().out.startswith(f"{version} is current in {bundles}: 600 items")
    store = BundleStore(Path(bundles))
    store.point_to(shutil.copytree(store.current(), store.directory / "another").name)
    run("use", version, "--bundles", bundles)
    assert store.current().name == version
    capsys.readouterr()
    run("list", "--bundles", bundles)
    assert sorted(line[:2] for line in capsys.readouterr().out.splitlines()) == ["  ", "* "]


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        pytest.param("ranker.onnx", constant_ranker, "every item the same score", id="a ranker that ranks nothing"),
        pytest.param("ranker.onnx", cut, "ranker.onnx", id="a ranker cut short"),
        pytest.param("item_table.npy", nan_vectors, "", id="vectors that are no numbers"),
        pytest.param("index.faiss", cut, "index.faiss", id="an index cut short"),
        pytest.param("user_tower.onnx", cut, "user_tower.onnx", id="a user tower cut short"),
        pytest.param("item_tower.onnx", cut, "item_tower.onnx", id="an item tower cut short"),
    ],
)
def test_what_verifies_but_does_not_work_is_refused(
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    change: Callable[[Path], None],
    reason: str,
) -> None:
    store = BundleStore(tmp_path)
    good = store.add(trained.bundles.current())
    store.point_to(good.name)
    altered(good, tmp_path / "broken", file, change)
    assert run("use", "broken", "--bundles", str(tmp_path)) == 1
    assert store.current() == good
    said = capsys.readouterr().err
    assert "engine: refused: " in said
    assert reason in said
    assert "Traceback" not in said


def test_what_does_not_verify_does_not_serve(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = BundleStore(tmp_path)
    good = store.add(trained.bundles.current())
    store.point_to(good.name)
    broken = shutil.copytree(good, tmp_path / "broken")
    with (broken / "ranker.onnx").open("ab") as file:
        file.write(b"x")
    assert run("use", "broken", "--bundles", str(tmp_path)) == 1
    assert "ranker.onnx" in capsys.readouterr().err
    assert store.current() == good
    assert run("use", "nowhere", "--bundles", str(tmp_path)) == 1
    assert "manifest.json" in capsys.readouterr().err


def test_a_file_that_crashes_its_reader_crashes_no_command(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(bundle_check.sys, "executable", str(crashing))
    with pytest.raises(BundleError, match="signal 11"):
        bundle_check.check_apart(trained.bundles.current(), None, trained.bundles.directory, None)


def test_a_bundle_that_lost_most_items_is_asked_about(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_check, "_LEAST_ITEMS", 1.5)
    copy = shutil.copytree(trained.bundles.current(), tmp_path / "copy")
    with pytest.raises(BundleError, match="--force"):
        bundle_check.check_bundle(copy, EngineConfig(), trained.bundles.current())


def test_a_broken_current_bundle_keeps_no_good_one_out(trained: Trained, tmp_path: Path) -> None:
    """Opened without complaint, and found out by its answers alone: whatever mends it must come in."""
    store = BundleStore(tmp_path)
    good = store.add(trained.bundles.current())
    altered(good, tmp_path / "broken", "ranker.onnx", constant_ranker)
    store.point_to("broken")
    assert run("use", good.name, "--bundles", str(tmp_path)) == 0
    assert store.current() == good


def test_in_a_small_shop_all_may_score_alike(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twenty items that everybody has bought, no ranker tells one from another."""
    path = altered(trained.bundles.current(), tmp_path / "alike", "ranker.onnx", constant_ranker)
    monkeypatch.setattr(bundle_check, "_could_differ", lambda model: False)
    assert bundle_check.check_bundle(path, EngineConfig()).probes == bundle_check.PROBES


@pytest.mark.parametrize("version", ["../elsewhere", "/tmp/elsewhere", "", ".hidden", "a/b"])
def test_no_bundle_leads_out_of_its_store(trained: Trained, tmp_path: Path, version: str) -> None:
    source = shutil.copytree(trained.bundles.current(), tmp_path / "source")
    manifest = json.loads((source / MANIFEST).read_text())
    (source / MANIFEST).write_text(json.dumps(manifest | {"version": version}))
    with pytest.raises(BundleError, match="version"):
        BundleStore(tmp_path / "store" / "deep").add(source)
    listed = manifest["files"] | {"../../outside": next(iter(manifest["files"].values()))}
    (source / MANIFEST).write_text(json.dumps(manifest | {"files": listed}))
    with pytest.raises(BundleError, match="files"):
        BundleStore(tmp_path / "store" / "deep").add(source)


def test_a_later_bundle_waits_for_its_users(
    trained: Trained, tmp_path: Path, redis_server: EmbeddedRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between training and publishing nobody is a stranger: the old bundle serves, whose records are there."""
    config = EngineConfig.model_validate({"bundle": {"directory": tmp_path}, "redis": {"url": redis_server.url}})
    store = BundleStore(tmp_path)
    first = store.add(trained.bundles.current())
    check_and_offer(store, first, None, at_once=False)
    assert store.current() == first
    publish_once(trained.data, config)

    # The same files under another generation, as the next training would write them.
    second = shutil.copytree(first, tmp_path / "second")
    manifest = json.loads((second / MANIFEST).read_text())
    generation = manifest["generation"] + 1
    (second / MANIFEST).write_text(json.dumps(manifest | {"version": "second", "generation": generation}))
    check_and_offer(store, second, None, at_once=False)
    assert (store.current(), store.next()) == (first, second)
    run("list", "--bundles", str(tmp_path))
    assert "+ second" in capsys.readouterr().out

    async def known(generation: int) -> bool:
        users = RedisFeatureStore(redis_server.url, config.redis)
        try:
            return (await users.fetch(trained.dataset.users["user_id"][0], generation)).record is not None
        finally:
            await users.close()

    assert not asyncio.run(known(generation))
    publish_once(trained.data, config)
    assert (store.current(), store.next()) == (second, None)
    assert asyncio.run(known(generation))
    assert os.readlink(tmp_path / "current") == "second"
