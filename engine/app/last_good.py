"""The bundle and rules that the workers of one supervisor served last, for a worker that starts when the current ones
do not verify.

The supervisor has a directory for it, which outlives every worker and is empty when the supervisor starts:

    bundle         the path of the bundle
    trial          the path of a bundle that no worker has served by yet, while one opens it
    rules-HASH     a rules file as it was in force; the hash is of its path
"""

import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from engine.app.bundle_check import check_bundle
from engine.app.model import load_model
from engine.batching.micro_batcher import MicroBatcher
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.errors import (
    AnotherTries,
    BundleError,
    ConfigError,
    DependencyUnavailable,
    RulesError,
    described,
)
from engine.experiments.settings import variant_rules
from engine.request.model import ServingModel
from engine.rules.load import parse_rules, read_bytes
from engine.rules.schema import Rules
from engine.runtime.helper_process import HelperProcess

log = logging.getLogger(__name__)

_BUNDLE: Final = "bundle"
_TRIAL: Final = "trial"


class LastGood:
    """Keeps it and gives it back. Files that cannot be written are logged, and nothing else.

    Args:
        directory: the supervisor's; None: nothing is kept, and a start that fails has failed.
        busy: told True before a bundle is opened and False after it.

    Attributes:
        in_use: "bundle" or "rules", while this process serves an earlier one than the current one.
    """

    def __init__(self, directory: Path | None = None, busy: Callable[[bool], None] = lambda _: None) -> None:
        self._directory = directory
        self._busy = busy
        self._kept: dict[str, bytes] = {}
        self._opened: dict[str, bytes] = {}
        self.in_use: set[str] = set()

    @property
    def has_served(self) -> bool:
        """A worker of this supervisor has served."""
        return self._bytes(_BUNDLE) is not None

    def bundle(self) -> Path:
        """The bundle that was last served. Raises BundleError where none was."""
        content = self._bytes(_BUNDLE)
        if content is None:
            raise BundleError("no bundle has served yet")
        return Path(os.fsdecode(content))

    def rules(self, path: Path) -> bytes | None:
        """What a rules file held when it was last in force."""
        return self._bytes(_rules_name(path))

    def opened(self, bundle: Path, rules: dict[Path, bytes]) -> None:
        """This process is going to serve by these."""
        self._opened = {_rules_name(path): content for path, content in rules.items()}
        self._opened[_BUNDLE] = os.fsencode(bundle)

    def serving(self) -> None:
        """It serves by what it has opened."""
        for name, content in self._opened.items():
            self._keep(name, content)

    def serves(self, bundle: Path) -> None:
        """It serves by this bundle from now on."""
        self._keep(_BUNDLE, os.fsencode(bundle))

    def in_force(self, path: Path, content: bytes) -> None:
        """This content of a rules file is in force."""
        self._keep(_rules_name(path), content)

    def note(self, what: str, *, outdated: bool) -> None:
        """Record whether this process serves an earlier `what` ("bundle" or "rules") than the current one."""
        (self.in_use.add if outdated else self.in_use.discard)(what)

    @contextmanager
    def opening(self, path: Path, config: EngineConfig | None = None) -> Iterator[None]:
        """Around the opening of a bundle.

        One that nobody has served by is opened by one worker at a time, so that a bundle which crashes its reader ends
        one worker and not all. After that it is tried in a process of its own.

        Args:
            config: for that try, which takes as long as opening it does; without, there is none.

        Raises:
            AnotherTries. BundleError: a worker ended when it opened the bundle, and so did the process of the try.
        """
        self._busy(True)
        try:
            if self._directory is None or not self.has_served or path.resolve() == self.bundle():
                yield
                return
            with self._alone(self._directory / f"{_TRIAL}.lock"):
                trial = self._directory / _TRIAL
                if self._bytes(_TRIAL) == os.fsencode(path.resolve()):
                    if config is None:
                        raise BundleError(f"{path}: a worker ended while it opened this bundle")
                    log.warning("%s: a worker ended while it opened this bundle; a process of its own tries it", path)
                    with closing(HelperProcess()) as helper:
                        helper.call(check_bundle, path, config)
                trial.write_bytes(os.fsencode(path.resolve()))
                try:
                    yield
                finally:
                    trial.unlink(missing_ok=True)
        finally:
            self._busy(False)

    @staticmethod
    @contextmanager
    def _alone(path: Path) -> Iterator[None]:
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AnotherTries("another worker is opening this bundle") from None
            yield

    def _bytes(self, name: str) -> bytes | None:
        if self._directory is None:
            return None
        try:
            return (self._directory / name).read_bytes()
        except OSError:
            return None

    def _keep(self, name: str, content: bytes) -> None:
        if self._directory is None or self._kept.get(name) == content:
            return
        aside = self._directory / f".{name}.{os.getpid()}"
        try:
            aside.write_bytes(content)
            aside.replace(self._directory / name)
        except OSError as error:
            log.warning("what serves now is not kept for workers that start later: %s", described(error))
        self._kept[name] = content


def first_model(config: EngineConfig, last_good: LastGood, batcher: MicroBatcher | None = None) -> ServingModel:
    """Open the current bundle with the current rules.

    A part that does not verify is replaced by the one served last, if a worker has served. The pointer to the current
    bundle does not move, so that the follower tries that bundle again.

    Raises:
        BundleError, RulesError, ConfigError: neither can be used, or nothing has been served yet and the current one
            cannot be used.
        DependencyUnavailable: the device process does not run.
    """
    store = BundleStore(config.bundle.directory)
    outdated: set[str] = set()
    while True:
        path, contents = None, {}
        try:
            contents = _read_rules(config, last_good if "rules" in outdated else None)
            path = last_good.bundle() if "bundle" in outdated else store.current()
            model = _open(path, contents, config, last_good, batcher)
        except DependencyUnavailable:
            raise
        except Exception as error:
            # Rules that clash with one bundle may fit the other one.
            faults = ("rules", "bundle") if isinstance(error, RulesError | ConfigError) else ("bundle",)
            fault = next((one for one in faults if one not in outdated), None)
            if fault is None or not last_good.has_served:
                raise
            log.error("%s; starting by the %s that was last served", described(error), fault)
            outdated.add(fault)
        else:
            last_good.in_use |= outdated
            last_good.opened(model.bundle.path, contents)
            return model


def _read_rules(config: EngineConfig, last_good: LastGood | None) -> dict[Path, bytes]:
    """The content of every rules file that the settings name, as it is or as it was last in force."""
    variants = [variant.rules for one in config.experiments for variant in one.variants]
    files = [*([config.rules.file] if config.rules.file else []), *(one for one in variants if isinstance(one, Path))]
    contents = {}
    for path in files:
        content = None if last_good is None else last_good.rules(path)
        contents[path] = read_bytes(path) if content is None else content
    return contents


def _open(
    path: Path,
    contents: dict[Path, bytes],
    config: EngineConfig,
    last_good: LastGood,
    batcher: MicroBatcher | None,
) -> ServingModel:
    def load(file: Path) -> Rules:
        return parse_rules(contents[file], str(file), config.surfaces)

    rules = load(config.rules.file) if config.rules.file else None
    for_variants = variant_rules(config, rules, load)
    with last_good.opening(path):
        model = load_model(path, config, rules, for_variants, batcher)
    for one in (*([] if rules is None else [rules]), *for_variants.values()):
        model.catalogue.check_rules(one)
    return model


def _rules_name(path: Path) -> str:
    return f"rules-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
