"""Following the bundle pointer: what is loaded, how often, and what keeps serving."""

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.app.model import load_model
from engine.app.swap import follow_current
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.features.state import UserState
from engine.request.model import ServingModel
from engine.request.pipeline import Pipeline
from engine.stages.features import FetchFeatures
from tests.conftest import Trained

CONFIG = EngineConfig.load()


class NoStore:
    async def fetch(self, user_id: str, generation: int) -> UserState:
        return UserState.unknown()


@dataclass
class Loader:
    """Loads bundles for real, counts, and can be told to break."""

    loaded: list[str] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, path: Path) -> ServingModel:
        self.loaded.append(path.name)
        if self.error is not None:
            raise self.error
        return load_model(path, CONFIG)


@asynccontextmanager
async def following(bundles: BundleStore, loader: Loader) -> AsyncIterator[Pipeline]:
    with ThreadPoolExecutor(1) as executor:
        pipeline = Pipeline(load_model(bundles.current(), CONFIG), FetchFeatures(NoStore(), 1.0, 0), CONFIG, executor)
        follower = asyncio.create_task(follow_current(bundles, pipeline, loader, 0.01))
        try:
            yield pipeline
            assert not follower.done()
        finally:
            follower.cancel()
            with suppress(asyncio.CancelledError):
                await follower


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    pytest.fail("waited in vain")


@pytest.fixture
def bundles(trained: Trained, tmp_path: Path) -> BundleStore:
    """The same bundle under two names, neither of which is its version; "first" is current."""
    store = BundleStore(tmp_path)
    for name in ("first", "second"):
        shutil.copytree(trained.bundles.current(), tmp_path / name)
    store.point_to("first")
    return store


async def test_a_bundle_is_loaded_once_whatever_its_directory_is_called(bundles: BundleStore) -> None:
    loader = Loader()
    async with following(bundles, loader) as pipeline:
        await asyncio.sleep(0.2)
        assert loader.loaded == []
        bundles.point_to("second")
        await until(lambda: pipeline.model.bundle.path.name == "second")
        await asyncio.sleep(0.2)
    assert loader.loaded == ["second"]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError(), KeyError("x")])
async def test_an_error_that_nobody_foresaw_is_refused_once_and_later_bundles_follow(
    bundles: BundleStore, error: Exception
) -> None:
    loader = Loader(error=error)
    async with following(bundles, loader) as pipeline:
        bundles.point_to("second")
        await until(lambda: bool(loader.loaded))
        await asyncio.sleep(0.2)
        assert loader.loaded == ["second"]
        assert pipeline.model.bundle.path.name == "first"
        loader.error = None
        shutil.copytree(bundles.directory / "second", bundles.directory / "third")
        bundles.point_to("third")
        await until(lambda: pipeline.model.bundle.path.name == "third")


async def test_a_pointer_that_is_gone_for_a_while_does_no_harm(bundles: BundleStore) -> None:
    loader = Loader()
    async with following(bundles, loader) as pipeline:
        (bundles.directory / "current").unlink()
        await asyncio.sleep(0.1)
        assert pipeline.model.bundle.path.name == "first"
        bundles.point_to("second")
        await until(lambda: pipeline.model.bundle.path.name == "second")


async def test_a_model_that_was_replaced_is_freed_in_a_thread_and_without_the_collector(bundles: BundleStore) -> None:
    freed_by: list[str] = []
    gc.disable()  # a cycle would keep it, and on a server whose heap is frozen forever
    try:
        async with following(bundles, Loader()) as pipeline:
            weakref.finalize(pipeline.model.catalogue, lambda: freed_by.append(threading.current_thread().name))
            index = weakref.ref(pipeline.model.index)
            held = pipeline.model
            bundles.point_to("second")
            await until(lambda: pipeline.model.bundle.path.name == "second")
            await asyncio.sleep(0.3)
            assert freed_by == []
            del held
            await until(lambda: bool(freed_by))
            assert index() is None
    finally:
        gc.enable()
    assert freed_by != [threading.main_thread().name]
