"""Hot swap: follow the bundle pointer, and change the pipeline's model between two requests."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from engine.bundle.store import BundleStore
from engine.errors import BundleError, EngineError
from engine.pipeline import Pipeline, ServingModel

log = logging.getLogger(__name__)


async def follow_current(
    store: BundleStore, pipeline: Pipeline, load: Callable[[Path], ServingModel], poll_s: float
) -> None:
    """Look at the pointer every `poll_s` seconds, for ever; load what it names beside what serves, then swap.

    A bundle that does not verify is refused once, with the reason in the log, and the old one keeps serving.
    Requests under way finish with the model that they began with.
    """
    refused: str | None = None
    while True:
        await asyncio.sleep(poll_s)
        try:
            path = store.current()
        except BundleError as error:
            log.warning("the bundle pointer cannot be read, bundle %s keeps serving: %s", pipeline.version, error)
            continue
        if path.name in (pipeline.version, refused):
            continue
        try:
            # In a thread of its own: requests keep their compute threads while hashes and the dry run take theirs.
            pipeline.model = await asyncio.to_thread(load, path)
            log.info("serving bundle %s", path.name)
        except EngineError as error:
            refused = path.name
            log.error("bundle %s refused, %s keeps serving: %s", path.name, pipeline.version, error)
