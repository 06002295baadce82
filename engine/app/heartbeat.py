"""Whether a process answers: the silence between its beats, and whether it or the machine is to blame.

A process says BEAT from its event loop, so that a stopped process, an endless callback and a native call that holds the
interpreter all make it silent.
"""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Final

SERVING: Final = "serving"
BEAT: Final = "beat"
# Around work that may hold the interpreter for long: a bundle is opened, the process ends.
BUSY: Final = "busy"
FREE: Final = "free"
# Beats within one limit: a few may be late.
BEATS: Final = 12
# Looks at the silence within one limit.
LOOKS: Final = 24
# The limit between BUSY and FREE, in limits of a process that only serves.
_BUSY_LIMITS: Final = 10.0
# Silence that the machine causes is borne for so many limits.
_STARVED_LIMITS: Final = 5.0
# From this part of the limit on, it is recorded how long threads wait for a processor.
_SUSPICIOUS: Final = 1 / 3
# A thread that waited for a processor for this share of the time was starved.
_STARVED_SHARE: Final = 0.5
_NS: Final = 1e-9


class Verdict(Enum):
    ALIVE = "alive"
    SILENT = "silent"  # it does not serve, but the machine may be the reason
    DEAD = "dead"


class Pulse:
    """The silence of one process, for one listener.

    Args:
        start_s: how long it may take until it serves.
        limit_s: how long it may be silent from then on.
    """

    def __init__(self, start_s: float, limit_s: float) -> None:
        self._start_s = start_s
        self._limit_s = limit_s
        self._started = False
        self._busy = 0
        self._waited: Mapping[int, float] | None = None
        self._waited_since_s = 0.0
        self.silent_s = 0.0

    def beat(self, line: str = BEAT) -> None:
        """It said something. line: one of the words above."""
        self._started |= line == SERVING
        self._busy += (line == BUSY) - (line == FREE)
        self.silent_s, self._waited = 0.0, None

    @property
    def limit_s(self) -> float:
        if not self._started:
            return self._start_s
        return self._limit_s * (_BUSY_LIMITS if self._busy > 0 else 1.0)

    def look(self, process_id: int, elapsed_s: float) -> Verdict:
        """Add to the silence of this process the time since the last look, and judge it.

        elapsed_s: no more than the listener was to be asleep for. A listener that is late itself knows nothing of that
        time: the machine was suspended, or had no processor for it.
        """
        self.silent_s += elapsed_s
        # By the next look it would be later than that.
        limit_s = self.limit_s - elapsed_s
        if self._waited is None and self.silent_s >= limit_s * _SUSPICIOUS:
            self._waited, self._waited_since_s = waited_s(process_id), self.silent_s
        if self.silent_s < limit_s:
            return Verdict.ALIVE
        if self.silent_s < limit_s * _STARVED_LIMITS and self._starved(process_id):
            return Verdict.SILENT
        return Verdict.DEAD

    def _starved(self, process_id: int) -> bool:
        """One of its threads waits for the disk, or has waited for a processor for most of the time."""
        before, now = self._waited or {}, waited_s(process_id)
        longest_s = max((now[thread] - before.get(thread, 0.0) for thread in now if thread in before), default=0.0)
        watched_s = self.silent_s - self._waited_since_s
        return longest_s >= _STARVED_SHARE * watched_s > 0.0 or "D" in states(process_id)


def waited_s(process_id: int) -> dict[int, float]:
    """By thread, the seconds that it was ready to run and had no processor; empty where the system does not tell."""
    found = {}
    for task in _tasks(process_id):
        try:
            found[int(task.name)] = int((task / "schedstat").read_text().split()[1]) * _NS
        except (OSError, ValueError, IndexError):
            continue
    return found


def states(process_id: int) -> set[str]:
    """The letters that the kernel has for what its threads do: "D" waits for the disk, "T" is stopped."""
    found = set()
    for task in _tasks(process_id):
        try:
            found.add((task / "stat").read_text().rpartition(")")[2].split()[0])
        except (OSError, IndexError):
            continue
    return found


def _tasks(process_id: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{process_id}/task").iterdir())
    except OSError:
        return []
