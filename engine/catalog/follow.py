"""Keep the serving catalogues up to date with the overlay and with the rules file, beside the requests."""

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

from engine.catalog.changes import Change, Overlay
from engine.catalog.live import LiveCatalogue
from engine.errors import DependencyUnavailable, RulesError, SnapshotNeeded
from engine.logs import OncePerInterval
from engine.rules.follow import RulesFile
from engine.rules.schema import Rules
from engine.runtime.stalls.turns import free_in_turns

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=30.0))

# How long one look at the stream waits for changes: bounds how late a swapped bundle or a stop is noticed.
_WAIT_S: Final = 0.25
_RETRY_S: Final = 0.25


class HasCatalogue(Protocol):
    """A serving model, as this module uses it."""

    @property
    def catalogue(self) -> LiveCatalogue: ...


class ServingModels(Protocol):
    """The models that serve now; implemented by engine.request.pipeline.Pipeline."""

    @property
    def models(self) -> Sequence[HasCatalogue]: ...


class ChangeSource(Protocol):
    """Where the overlay is stored. Calls may block, and raise DependencyUnavailable."""

    def snapshot(self, generations: Iterable[int]) -> list[Change]:
        """The whole overlay, vectors of these embedding spaces included; `follow` goes on from there."""
        ...

    def follow(self, timeout_s: float) -> list[Change]:
        """The changes since the last call; waits for them. Raises SnapshotNeeded where only a snapshot has them."""
        ...


class CatalogueFollower:
    """Holds the overlay, and applies it to catalogues. `catch_up` may be called while the follower's thread runs."""

    def __init__(self, source: ChangeSource) -> None:
        self._source = source
        self._overlay = Overlay()
        self._lock = threading.Lock()
        # The embedding spaces whose moved vectors the overlay holds from the start.
        self._generations: frozenset[int] = frozenset()
        # By bundle, the last rules that clashed with its items.
        self._refused: dict[str, Rules] = {}

    def load(self, generations: Collection[int]) -> None:
        """Read the whole overlay, for bundles of these embedding spaces. Raises DependencyUnavailable."""
        changes = self._source.snapshot(generations)
        with self._lock:
            self._overlay.replace(changes)
        free_in_turns(changes)
        self._generations = frozenset(generations)

    def catch_up(self, catalogue: LiveCatalogue) -> None:
        """Apply to a catalogue all changes after its own `sequence`."""
        with self._lock:
            if catalogue.sequence < self._overlay.sequence:
                catalogue.apply(self._overlay.since(catalogue.sequence), self._overlay.sequence)

    def use_rules(self, catalogue: LiveCatalogue, rules: Rules) -> None:
        """Let a catalogue serve by these rules, unless it does already or has refused them.

        For one caller at a time. Raises RulesError, once for the same rules and bundle, if they clash with its items:
        the catalogue keeps the rules that it has.
        """
        bundle = catalogue.bundle.version
        if rules is catalogue.rules.rules or (rules is self._refused.get(bundle)):
            return
        try:
            # Takes seconds for many rules over a large catalogue; stock must keep changing meanwhile.
            compiled = catalogue.compile_rules(rules)
        except RulesError:
            self._refused[bundle] = rules
            raise
        with self._lock:
            catalogue.set_rules(compiled)

    def run(self, serving: Callable[[], Sequence[LiveCatalogue]], stop: threading.Event) -> None:
        """Follow until `stop` is set. On any error the catalogues keep serving as they were."""
        needs_snapshot = False
        while not stop.is_set():
            try:
                generations = {catalogue.bundle.manifest.generation for catalogue in serving()}
                if needs_snapshot or not generations <= self._generations:
                    self.load(generations)
                    needs_snapshot = False
                else:
                    changes = self._source.follow(_WAIT_S)
                    with self._lock:
                        self._overlay.add(changes)
                for catalogue in serving():
                    self.catch_up(catalogue)
            except SnapshotNeeded as error:
                log.warning("reading the whole catalogue overlay: %s", error)
                needs_snapshot = True
            except DependencyUnavailable as error:
                log.warning("the catalogue stays as it was: %s", error)
                needs_snapshot = True
                stop.wait(_RETRY_S)
            except Exception:  # or it would end this thread silently
                log.exception("a change of the catalogue could not be shown")
                stop.wait(_RETRY_S)


async def follow_rules(
    file: RulesFile,
    follower: CatalogueFollower,
    serving: ServingModels,
    poll_s: float,
    looked: Callable[[], None] = lambda: None,
) -> None:
    """Check the rules file every `poll_s` seconds, forever. A bad file is refused, and the previous rules stay.

    looked: called after each check.
    """
    while True:
        await asyncio.sleep(poll_s)
        try:
            await asyncio.to_thread(file.poll)
            await _use_rules(file.rules, follower, serving)
            looked()
        except RulesError as error:
            log.error("%s; the rules of before stay in force", error)
        except Exception:  # or it would end this task silently
            log.exception("the rules could not be followed")


async def _use_rules(rules: Rules, follower: CatalogueFollower, serving: ServingModels) -> None:
    # A function of its own: between two rounds nothing here holds on to a model that has been replaced.
    for model in serving.models:
        await asyncio.to_thread(follower.use_rules, model.catalogue, rules)
