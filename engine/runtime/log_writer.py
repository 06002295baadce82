"""Log lines are written by a thread of their own: a slow disk or a full pipe must not hold up who logs."""

import logging
import queue
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler, QueueListener
from typing import Final

# Lines that may wait; past it they are dropped, and the next one that gets through says how many.
MAX_WAITING = 10_000
# For what waits, at the end.
_END_S: Final = 5.0


class BackgroundHandler(QueueHandler):
    """Puts records into a bounded queue, as they are: formatting is the writer's work, too."""

    def __init__(self, waiting: "queue.Queue[logging.LogRecord]") -> None:
        super().__init__(waiting)
        self._dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record itself: the writer is a thread of the same process."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self._dropped:
                self.queue.put_nowait(self._lost(self._dropped))
                self._dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    @staticmethod
    def _lost(count: int) -> logging.LogRecord:
        text = "%d lines were dropped: the log was not written as fast as it came"
        return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (count,), None)


class LogWriter(QueueListener):
    """The thread that writes. Its end takes a bounded time, whatever becomes of the log."""

    def enqueue_sentinel(self) -> None:
        with suppress(queue.Full):
            self.queue.put(None, timeout=_END_S)  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Write what waits, and end. Safe to call again."""
        if self._thread is not None:
            self.enqueue_sentinel()
            self._thread.join(_END_S)
            self._thread = None


@contextmanager
def logs_in_background() -> Iterator[None]:
    """Hand what the root logger's handlers would write to a thread, for as long as the context lasts.

    To be entered once logging is set up. What waits at the end is written then, where that takes seconds at most.
    """
    root = logging.getLogger()
    handlers = root.handlers
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(MAX_WAITING)
    writer = LogWriter(waiting, *handlers, respect_handler_level=True)
    root.handlers = [BackgroundHandler(waiting)]
    writer.start()
    try:
        yield
    finally:
        root.handlers = handlers
        writer.stop()
