"""Hot swap: follow the bundle pointer, and change the pipeline's model between two requests."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from engine.bundle.store import BundleStore
from engine.errors import BundleError, EngineError
from engine.logs import OncePerInterval
from engine.model import ServingModel
from engine.pipeline import Pipeline

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=30.0))


async def follow_current(
    store: BundleStore, pipeline: Pipeline, load: Callable[[Path], ServingModel], poll_s: float
) -> None:
    """Look at the pointer every `poll_s` seconds, for ever; load what it names beside what serves, then swap.

    A bundle that cannot be used is refused once, with the reason in the log, and the old one keeps serving. Requests
    under way finish with the model that they began with.
    """
    refused: Path | None = None
    while True:
        await asyncio.sleep(poll_s)
        try:
            path = store.current().resolve()
        except BundleError as error:
            log.warning("the bundle pointer cannot be read, bundle %s keeps serving: %s", pipeline.version, error)
            continue
        # By place, not by name: a directory may be called otherwise than the version inside.
        if path in (pipeline.model.bundle.path, refused):
            continue
        try:
            # In a thread of its own: requests keep their compute threads while hashes and the dry run take theirs.
            pipeline.model = await asyncio.to_thread(load, path)
            log.info("serving bundle %s", pipeline.version)
        except EngineError as error:
            refused = path
            log.error("bundle %s refused, %s keeps serving: %s", path.name, pipeline.version, error)
        except Exception:  # nobody waits for this task: it would end without a word, and no bundle would ever follow
            refused = path
            log.exception("bundle %s refused, %s keeps serving", path.name, pipeline.version)
