"""Follow a rules file that users edit while the engine serves."""

import hashlib
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeAlias

from engine.errors import EngineError, RulesError
from engine.rules.load import parse_rules, read_bytes
from engine.rules.schema import Rules

log = logging.getLogger(__name__)

# As engine.rules.load.parse_rules.
Parse: TypeAlias = Callable[[bytes, str, Collection[str]], Rules]


class RulesFile:
    """One file and the last good rules in it. For one caller at a time."""

    def __init__(
        self, path: Path, surfaces: Collection[str], parse: Parse = parse_rules, last_good: bytes | None = None
    ) -> None:
        """Read the file. Raises RulesError where it cannot be, for a server must not start without its rules.

        Args:
            parse: for every later version of the file. A server has it done by another process: parsing YAML is
                Python code, and a hundred rules hold the interpreter for 100 ms.
            last_good: content that was in force before; it is used where the file cannot be.
        """
        self.path = path
        self._surfaces = tuple(surfaces)
        self._parse = parse
        self._stamp = self._look()
        self._complaint = ""
        try:
            self.content = read_bytes(path)
            self.rules = parse_rules(self.content, str(path), self._surfaces)
            self._good = self._tried = _digest(self.content)
        except RulesError as error:
            if last_good is None:
                raise
            self.content = last_good
            self.rules = parse_rules(last_good, str(path), self._surfaces)
            # Read again by the first poll, which says what is wrong.
            self._stamp, self._good, self._tried = None, _digest(last_good), b""
            self._complaint = str(error)

    @property
    def in_force(self) -> bool:
        """The rules are those of the file as it was when it was last looked at."""
        return not self._complaint

    def poll(self) -> Rules | None:
        """The new rules, where the file has changed for the good since the last call; else None.

        A file that is gone or wrong is logged once, and the old rules stay. Never raises for the file's sake.

        Cost: one stat while nothing changes; reading and checking the file when it does.
        """
        stamp = self._look()
        if stamp is not None and stamp == self._stamp:
            return None
        # Taken before the read: what is written meanwhile changes it again, and is read the next time.
        self._stamp = stamp
        try:
            content = read_bytes(self.path)
        except RulesError as error:
            # Neither time nor size need change for the file to be readable again: forget them, and what was in it.
            self._stamp, self._tried = None, b""
            self._complain(str(error))
            return None
        try:
            digest = _digest(content)
            if digest == self._good:
                self._back_to_good(digest)
                return None
            if digest == self._tried and self._complaint:
                return None
            self._tried = digest
            self.rules = self._parse(content, str(self.path), self._surfaces)
        except RulesError as error:
            self._complain(str(error))
            return None
        except EngineError as error:
            # Who parses has failed, not the file: it is tried again.
            self._stamp, self._tried = None, b""
            self._complain(str(error))
            return None
        self.content, self._good, self._complaint = content, digest, ""
        log.info("%s: %d rules from now on", self.path, len(self.rules))
        return self.rules

    def _look(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        # The inode, too: tools that rename a finished file into place may keep the old one's time and size.
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            log.error("%s; the rules of before stay in force", complaint)
        self._complaint = complaint

    def _back_to_good(self, digest: bytes) -> None:
        if self._complaint:
            log.info("%s: as it was before the error", self.path)
        self._tried, self._complaint = digest, ""


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
