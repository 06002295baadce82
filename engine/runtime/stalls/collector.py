"""The garbage collector of a process that serves: no collection looks at what lives long, so that each one is short.

A full collection visits every container that it knows of, 150 to 500 ns each, with the interpreter held: half a million
of them, which the imports alone make, are 200 ms in which nothing is answered. Frozen objects are visited no more;
reference counts still free them. Only cycles of garbage among them stay, so that nothing that is replaced while a
process serves (a bundle's model, rules, an overlay) may be part of a cycle.
"""

import gc
import threading
import time
from collections import deque
from typing import Any, Final, NamedTuple

# Containers made, less those freed, before the youngest are collected; collections of the youngest before the next
# generation's; and of those before a full one: some 2,000 containers from one to the next.
THRESHOLDS: Final = (400, 2, 1)
# So many survivors of a full collection are here to stay: they are frozen, too, and the next one is short again.
LIVES_LONG: Final = 1_000
_OLDEST: Final = 2


def freeze_long_lived() -> None:
    """Freeze what there is, from here on freeze what stays, and bound what a collection visits.

    To be called when all that lives long has been built: before a process says that it serves, and again after a swap.
    For a process that does nothing but serve.

    Cost: the first call is one full collection, hundreds of milliseconds; later ones are as short as any collection.
    """
    gc.set_threshold(*THRESHOLDS)
    if _freeze_what_stays not in gc.callbacks:
        gc.callbacks.append(_freeze_what_stays)
    gc.collect()
    gc.freeze()
    # Python puts a full collection off until a quarter as much as the last one left is new: it is to forget that one.
    gc.collect()


def _freeze_what_stays(phase: str, info: dict[str, int]) -> None:
    # While a process serves, what lives long grows: changes of the catalogue, last known users, new rules.
    if phase == "stop" and info["generation"] == _OLDEST and len(gc.get_objects(_OLDEST)) > LIVES_LONG:
        gc.freeze()


class Collection(NamedTuple):
    """One collection. started, ended: time.monotonic() seconds. thread: threading's ident of where it happened.

    ran: seconds on a processor; the rest of the time it waited for one.
    """

    started: float
    ended: float
    generation: int
    thread: int
    ran: float


class CollectorClock:
    """Times every collection of this process, from `start` to `stop`.

    What it has noted is fetched, not reported: a collection can begin anywhere, also where a lock is held that a
    report would need.
    """

    _KEPT: Final = 1024

    def __init__(self) -> None:
        self._started = self._ran = 0.0
        self._noted: deque[Collection] = deque(maxlen=self._KEPT)

    def start(self) -> None:
        gc.callbacks.append(self._note)

    def stop(self) -> None:
        gc.callbacks.remove(self._note)

    def take(self) -> list[Collection]:
        """The collections since the last call."""
        taken = []
        while self._noted:
            taken.append(self._noted.popleft())
        return taken

    def _note(self, phase: str, info: dict[str, Any]) -> None:
        now = time.monotonic()
        if phase == "start":
            self._started, self._ran = now, time.thread_time()
        else:
            ran = time.thread_time() - self._ran
            self._noted.append(Collection(self._started, now, info["generation"], threading.get_ident(), ran))
