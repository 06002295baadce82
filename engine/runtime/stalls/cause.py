"""From what was seen of a pause to its cause: what of it this process made, and what the machine did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from engine.runtime.stalls.collector import Collection
from engine.runtime.stalls.usage import Usage

Stack = tuple[str, ...]

# From this share on of a pause something counts as what it was spent on.
_MOST: Final = 0.5
# What the innermost frames are where an event loop waits for events, or runs something that is not Python.
_LOOP_FILES: Final = ("uvloop/__init__.py", "asyncio/runners.py", "asyncio/base_events.py", "selectors.py")
_NOTHING: Final = Usage(0.0, 0.0)
_RUNNABLE: Final = "R"


class Cause(StrEnum):
    """Why the event loop was late."""

    # A garbage collection, in whichever thread.
    COLLECTOR = "collector"
    # A callback of the loop computed for so long.
    LOOP = "loop"
    # A callback of the loop waited for so long: for a lock, a file, a pipe.
    BLOCKED = "blocked"
    # Another thread held the interpreter.
    INTERPRETER = "interpreter"
    # There was no processor for the loop, or for who held the interpreter; or nothing of this process ran at all.
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Frames:
    """What threads did at one moment. at: a time.monotonic() instant.

    stacks: by native thread id, "file:line function" from the innermost frame on.
    held_up: who looked came late: this is what was going on once the interpreter was free again.
    loop_state: of the loop's thread, as /proc says it ("R": runs, or would); "" where it does not.
    """

    at: float
    stacks: Mapping[int, Stack]
    held_up: bool
    loop_state: str = ""


@dataclass(frozen=True, slots=True)
class PauseEvidence:
    """What was seen of one pause of an event loop.

    due, ran: time.monotonic() instants between which the loop was late.
    loop, watcher: native ids of the loop's thread and of who watches.
    used: by each thread meanwhile, by native id; empty where the system does not say.
    frames: oldest first. names: of threads, by native id. idents: native ids, by threading's idents.
    """

    due: float
    ran: float
    loop: int
    watcher: int
    used: Mapping[int, Usage]
    collections: Sequence[Collection] = ()
    frames: Sequence[Frames] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    idents: Mapping[int, int] = field(default_factory=dict)

    @property
    def length(self) -> float:
        return self.ran - self.due

    @property
    def looks(self) -> list[Frames]:
        """Those taken in the middle of it by somebody who had not waited: the interpreter was free then."""
        return [frames for frames in self.frames if not frames.held_up and self.due < frames.at < self.ran]


@dataclass(frozen=True, slots=True)
class Stall:
    """One pause, explained.

    at: when the loop should have run, a time.monotonic() instant. pause_ms: how late it was.
    own_ms: how much of it this process made itself; the rest is the machine's.
    thread: who is to blame, by name. stack: of that thread, from the innermost frame on; empty where nobody saw it.
    """

    at: float
    pause_ms: float
    own_ms: float
    cause: Cause
    thread: str
    stack: Stack

    def __str__(self) -> str:
        if self.cause is Cause.MACHINE:
            # What the stacks are is chance then.
            return f"{self.pause_ms:.0f} ms, {self.own_ms:.0f} ms of its own making: no processor for {self.thread}"
        stack = " < ".join(self.stack) or "no stack was seen"
        return f"{self.pause_ms:.0f} ms, {self.own_ms:.0f} ms of its own making: {self.cause}, {self.thread}: {stack}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "pause_ms": round(self.pause_ms, 2),
            "own_ms": round(self.own_ms, 2),
            "cause": str(self.cause),
            "thread": self.thread,
            "stack": list(self.stack),
        }


def explain(seen: PauseEvidence) -> Stall:
    """Name the cause of a pause, and how much of it was of the process's own making.

    The kernel's figures say who computed and who waited for a processor, the collector's clock says when it ran, and
    whoever could look at the stacks in the middle of it proves that the interpreter was free. Where the kernel says
    nothing every pause counts as the process's own.
    """
    cause, thread, own = _blame(seen)
    own = max(0.0, min(own, seen.length))
    if cause is not Cause.MACHINE and own < _MOST * seen.length:
        cause = Cause.MACHINE
    name = seen.names.get(thread, "a thread of no name")
    return Stall(seen.due, seen.length * 1000.0, own * 1000.0, cause, name, _stack(seen, thread))


def _blame(seen: PauseEvidence) -> tuple[Cause, int, float]:
    """The cause, the thread, and the seconds that are the process's own."""
    most = _MOST * seen.length
    loop = seen.used.get(seen.loop, _NOTHING)
    others = {thread: used.ran for thread, used in seen.used.items() if thread not in (seen.loop, seen.watcher)}
    holder = max(others, key=others.__getitem__, default=seen.loop)
    held, together = others.get(holder, 0.0), sum(others.values())
    # Whoever waits for a processor may hold the interpreter meanwhile: what that takes is the machine's.
    starved = max((used.waited for used in seen.used.values()), default=0.0)
    collected, computed, collector = _collected(seen)
    busy = _busy_looks(seen)
    if collected >= most:
        return Cause.COLLECTOR, collector, computed
    if not seen.used:
        return (Cause.BLOCKED if busy else Cause.LOOP), seen.loop, seen.length
    if loop.waited >= most:
        return Cause.MACHINE, seen.loop, min(seen.length - loop.waited, loop.ran)
    if loop.ran >= most:
        return Cause.LOOP, seen.loop, loop.ran
    if busy and together >= most:
        return Cause.INTERPRETER, holder, min(seen.length - starved, together)
    if busy:
        runnable = 2 * sum(frames.loop_state == _RUNNABLE for frames in busy) > len(busy)
        # Ready, neither run nor waiting for a processor: another guest of the same machine has it.
        own = loop.ran if runnable else seen.length - loop.waited
        return (Cause.MACHINE if runnable else Cause.BLOCKED), seen.loop, own
    if not seen.looks and held >= most:
        # By itself: threads that compute in Python take short turns, and the loop would have had one.
        return Cause.INTERPRETER, holder, min(seen.length - starved, held)
    return Cause.MACHINE, seen.loop if seen.looks else holder, loop.ran


def _busy_looks(seen: PauseEvidence) -> list[Frames]:
    """The looks at which the loop's thread was in Python code of a callback."""
    return [frames for frames in seen.looks if (stack := frames.stacks.get(seen.loop)) and not _idle(stack)]


def _idle(stack: Stack) -> bool:
    return stack[0].split(":", 1)[0].endswith(_LOOP_FILES)


def _collected(seen: PauseEvidence) -> tuple[float, float, int]:
    """Seconds of the pause in which the collector was at work, those of them that it had a processor for, and the
    native id of the thread with the longest collection."""
    longest, total, ran, where = 0.0, 0.0, 0.0, seen.loop
    for one in seen.collections:
        overlap = min(one.ended, seen.ran) - max(one.started, seen.due)
        if overlap > 0:
            total += overlap
            ran += min(one.ran, overlap)
            if overlap > longest:
                longest, where = overlap, seen.idents.get(one.thread, seen.loop)
    return total, ran, where


def _stack(seen: PauseEvidence, thread: int) -> Stack:
    """The thread's stack at the moment that says most: the last look in the middle of it, else the first one after."""
    known = [frames for frames in seen.frames if thread in frames.stacks]
    within = [frames for frames in known if frames.at <= seen.ran]
    chosen = within[-1:] or known[:1]
    return chosen[0].stacks[thread] if chosen else ()
