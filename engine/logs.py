"""Logging that a fault in a dependency cannot turn into a flood."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from engine.errors import described

Progress = Callable[[int, int, str], None]
"""How far a long step is: what is done, of how much, and what the step does."""

# Different contents of one template that are let through in an interval, and templates that are remembered.
_MAX_KINDS: Final = 20
_MAX_TEMPLATES: Final = 200


def content_of(record: logging.LogRecord) -> str:
    """The whole message, and the error that comes with it."""
    error = record.exc_info[1] if record.exc_info else None
    return record.getMessage() if error is None else f"{record.getMessage()}\n{described(error)}"


@dataclass(slots=True)
class _Kind:
    """One content: when it was last let through, how often it was held back since, and the last record of those."""

    said: float
    held: int = 0
    last: logging.LogRecord | None = None


@dataclass(slots=True)
class _Template:
    kinds: dict[str, _Kind] = field(default_factory=dict)
    # Held back because too many different ones came.
    others: int = 0


class OncePerInterval(logging.Filter):
    """Lets one record of each content through per interval; what was held back is counted, and said at its end.

    Two records are of one content when template and arguments are the same. Of one template at most 20 different ones
    get through in an interval; the rest are counted, too. Memory is bounded by both. Add it to the logger of a module
    that may log once a request. Thread-safe.

    Args:
        key: what makes the content of a record, instead of all of its message.
    """

    def __init__(
        self,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        key: Callable[[logging.LogRecord], str] = content_of,
    ) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._clock = clock
        self._key = key
        self._templates: dict[str, _Template] = {}
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        name, content = str(record.msg), self._key(record)
        with self._lock:
            now = self._clock()
            template = self._templates.get(name)
            if template is None:
                if len(self._templates) >= _MAX_TEMPLATES:
                    del self._templates[next(iter(self._templates))]
                template = self._templates[name] = _Template()
            kind = template.kinds.get(content)
            if kind is not None and now - kind.said < self._interval_s:
                kind.held += 1
                kind.last = record
                self._wake_later()
                return False
            if kind is None and len(template.kinds) >= _MAX_KINDS:
                kept = {old: one for old, one in template.kinds.items() if one.held or self._is_young(one, now)}
                template.kinds = kept
                if len(kept) >= _MAX_KINDS:
                    template.others += 1
                    return False
            held, others, template.others = kind.held if kind else 0, template.others, 0
            template.kinds[content] = _Kind(now)
        if held or others:
            record.msg, record.args = _with_counts(record, held, others), ()
        return True

    def say_held_back(self) -> None:
        """Say now what has been held back for an interval; a timer does so where nothing else happens."""
        due: list[tuple[logging.LogRecord, int]] = []
        with self._lock:
            now = self._clock()
            waiting = False
            for template in self._templates.values():
                for kind in template.kinds.values():
                    if kind.held and kind.last is not None and not self._is_young(kind, now):
                        due.append((kind.last, kind.held))
                        kind.said, kind.held, kind.last = now, 0, None
                    waiting |= kind.held > 0
            self._timer = None
            if waiting:
                self._wake_later()
        for record, held in due:
            # The last of them represents all; past this filter, which has just counted it.
            record.msg, record.args = _with_counts(record, held - 1, 0), ()
            logging.getLogger(record.name).callHandlers(record)

    def _is_young(self, kind: _Kind, now: float) -> bool:
        return now - kind.said < self._interval_s

    def _wake_later(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._interval_s, self.say_held_back)
            self._timer.daemon = True
            self._timer.start()


def _with_counts(record: logging.LogRecord, held: int, others: int) -> str:
    counts = [f"{held} more like it"] if held else []
    counts += [f"{others} others of its kind"] if others else []
    return record.getMessage() + (f" (and {' and '.join(counts)})" if counts else "")


class Outage:
    """Says a failure once, then at most once an interval how often it came, and once that it is over. Thread-safe.

    One for all who depend on the same thing: what one of them has said the others need not repeat.

    Args:
        logger: where to.
    """

    def __init__(
        self, logger: logging.Logger, interval_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        # Whoever has failed since it began.
        self._involved: set[str] = set()
        self._began = self._said_at = 0.0
        self._reasons: set[str] = set()
        self._total = self._unsaid = 0

    def failed(self, who: str, reason: str, count: int = 1) -> None:
        """Somebody has failed, again or for the first time. count: how many things at once."""
        with self._lock:
            now = self._clock()
            if not self._failing:
                self._began = self._said_at = now
                self._reasons, self._involved, self._total, self._unsaid = set(), set(), 0, 0
            self._failing.add(who)
            self._involved.add(who)
            self._total += count
            if reason not in self._reasons and len(self._reasons) < _MAX_KINDS:
                self._reasons.add(reason)
                self._logger.warning("%s: %s; trying again until it works", who, reason)
                return
            self._unsaid += count
            if now - self._said_at >= self._interval_s:
                names = ", ".join(sorted(self._failing))
                self._logger.warning(
                    "%s: still %s (%d failures in the last %.0f s)", names, reason, self._unsaid, now - self._said_at
                )
                self._said_at, self._unsaid = now, 0

    def over(self, who: str) -> None:
        """Somebody works, as ever or again. Cheap where nothing has failed."""
        if who not in self._failing:
            return
        with self._lock:
            self._failing.discard(who)
            if not self._failing:
                names, lasted_s = ", ".join(sorted(self._involved)), self._clock() - self._began
                self._logger.info("%s: working again after %.0f s and %d failures", names, lasted_s, self._total)
