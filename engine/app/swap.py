"""Hot swap: follow the bundle pointer, change the pipeline's model between two requests, and load variants' bundles."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from engine.app.last_good import LastGood
from engine.bundle.store import BundleStore
from engine.errors import AnotherTries, BundleError, EngineError
from engine.logs import OncePerInterval
from engine.request.model import ServingModel
from engine.request.pipeline import Pipeline

Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=30.0))

_LET_GO_POLL_S: Final = 0.1
# References to an object in a list that nobody else holds: the list's, and the one that counting them takes.
_ALONE: Final = 2


async def follow_current(
    store: BundleStore,
    pipeline: Pipeline,
    load: Callable[[Path], ServingModel],
    poll_s: float,
    last_good: LastGood | None = None,
) -> None:
    """Check the pointer every `poll_s` seconds, forever. Load the bundle that it names, then swap.

    The old bundle serves while the new one loads. A bundle that cannot be used is refused once, with the reason in the
    log; it is tried again when one of its files changes. Running requests finish with the model that they began with.
    """
    last_good = LastGood() if last_good is None else last_good
    refused: tuple[Path, Stamp] | None = None
    leaving: set[asyncio.Task[None]] = set()
    while True:
        await asyncio.sleep(poll_s)
        try:
            path = store.current().resolve()
        except BundleError as error:
            log.warning("the bundle pointer cannot be read, bundle %s keeps serving: %s", pipeline.version, error)
            last_good.note("bundle", outdated=True)
            continue
        # Compared by path: a directory's name may differ from the version inside.
        if path == pipeline.model.bundle.path:
            last_good.note("bundle", outdated=False)
            continue
        seen = (path, _stamp(path))
        if seen == refused:
            continue
        try:
            # In its own thread: hashes and the dry run must not occupy the requests' compute threads.
            model = await asyncio.to_thread(load, path)
            leaving.add(task := asyncio.create_task(let_go([pipeline.model])))
            task.add_done_callback(leaving.discard)
            pipeline.model = model
            del model
            refused = None
            last_good.serves(path)
            last_good.note("bundle", outdated=False)
            log.info("serving bundle %s", pipeline.version)
        except AnotherTries:
            continue
        except EngineError as error:
            refused = seen
            last_good.note("bundle", outdated=True)
            log.error("bundle %s refused, %s keeps serving: %s", path.name, pipeline.version, error)
        except Exception:  # or it would end this task silently, and no bundle would ever follow
            refused = seen
            last_good.note("bundle", outdated=True)
            log.exception("bundle %s refused, %s keeps serving", path.name, pipeline.version)


def _stamp(path: Path) -> Stamp:
    """What changes when a file of a bundle does."""
    try:
        files = [(entry.name, entry.stat()) for entry in os.scandir(path)]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in files))


async def let_go(models: list[ServingModel]) -> None:
    """Free models (given in a list, which is emptied) in a thread, once no other reference to them is left.

    The last reference to a model frees all its maps and graphs, which takes tens of milliseconds for a large one. A
    request that finishes with it could otherwise do that on the event loop.
    """
    while any(sys.getrefcount(models[place]) > _ALONE for place in range(len(models))):
        await asyncio.sleep(_LET_GO_POLL_S)
    # Not `pop`, which would hand the model back to the event loop.
    await asyncio.to_thread(models.clear)


class VariantBundles:
    """The bundles that variants name, beside the current one. For one caller at a time.

    A missing bundle is looked for again; one that does not verify is refused once. Meanwhile the current bundle answers
    the users assigned to it, and the answer says so.
    """

    def __init__(
        self, store: BundleStore, pipeline: Pipeline, load: Callable[[Path], ServingModel], names: Sequence[str]
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._load = load
        self._missing = list(names)

    def look(self) -> None:
        """Load the bundles that are there by now. Blocks. A bad bundle never raises."""
        for name in list(self._missing):
            path = self._store.directory / name
            if not path.is_dir():
                log.warning("bundle %s, which a variant names, is not there; the current one answers", path)
                continue
            self._missing.remove(name)
            model = self._pipeline.model
            try:
                # The current one is kept, too: another may become current while the experiment goes on.
                model = model if model.bundle.path == path.resolve() else self._load(path)
            except EngineError as error:
                log.error("bundle %s refused, the current one answers for it: %s", name, error)
            except Exception:  # or it would end the caller's task silently
                log.exception("bundle %s refused, the current one answers for it", name)
            else:
                self._pipeline.variant_models = {**self._pipeline.variant_models, name: model}
                log.info("bundle %s can answer for variants", name)

    async def follow(self, poll_s: float) -> None:
        """Check every `poll_s` seconds, until all bundles are loaded."""
        while self._missing:
            await asyncio.sleep(poll_s)
            await asyncio.to_thread(self.look)
