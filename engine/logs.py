"""Logging that a fault in a dependency cannot turn into a flood."""

import logging
import time
from collections.abc import Callable


class OncePerInterval(logging.Filter):
    """Lets one record of each message (by its format string) through per interval; the next one says how many were not.

    Add it to the logger of a module that logs once a request. Races between threads let a line too many through at
    worst.
    """

    def __init__(self, interval_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._clock = clock
        self._last: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message, now = str(record.msg), self._clock()
        if now - self._last.get(message, float("-inf")) < self._interval_s:
            self._held_back[message] = self._held_back.get(message, 0) + 1
            return False
        self._last[message] = now
        held_back = self._held_back.pop(message, 0)
        if held_back:
            record.msg = f"{message} (and {held_back} more like it)"
        return True
