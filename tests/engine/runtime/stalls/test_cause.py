"""Who is to blame for a pause, from what was seen of it."""

import pytest

from engine.runtime.stalls.cause import Cause, Frames, PauseEvidence, Stack, explain
from engine.runtime.stalls.collector import Collection
from engine.runtime.stalls.usage import Usage

LOOP, WATCHER, HELPER, COMPUTE = 1, 2, 3, 4
NAMES = {LOOP: "MainThread", WATCHER: "watch", HELPER: "helper", COMPUTE: "compute"}
IDLE: Stack = ("asyncio/runners.py:118 run", "uvloop/__init__.py:92 run")
BUSY: Stack = ("shop.py:7 handle", "asyncio/runners.py:118 run")
PARSING: Stack = ("rules.py:3 parse", "threading.py:1 run")


def seen(
    used: dict[int, tuple[float, float]], *frames: Frames, collections: tuple[Collection, ...] = ()
) -> PauseEvidence:
    """A pause of 100 ms from second 10 on. used: milliseconds on a processor, and without one."""
    usage = {thread: Usage(ran / 1000, waited / 1000) for thread, (ran, waited) in used.items()}
    return PauseEvidence(10.0, 10.1, LOOP, WATCHER, usage, collections, frames, NAMES, {77: HELPER})


def look(at: float, stack: Stack, *, held_up: bool = False, state: str = "S", helper: Stack = PARSING) -> Frames:
    return Frames(at, {LOOP: stack, HELPER: helper}, held_up, state)


def test_a_collection_is_blamed_with_the_thread_that_it_happened_in() -> None:
    stall = explain(
        seen(
            {LOOP: (1, 0), HELPER: (95, 0)},
            look(10.11, IDLE, held_up=True),
            collections=(Collection(10.0, 10.09, 2, 77, 0.085),),
        )
    )
    assert (stall.cause, stall.thread, stall.stack) == (Cause.COLLECTOR, "helper", PARSING)
    assert stall.own_ms == pytest.approx(85)


def test_a_collection_of_another_time_is_not() -> None:
    stall = explain(
        seen({LOOP: (95, 0)}, collections=(Collection(9.0, 9.9, 2, 77, 0.9), Collection(10.2, 10.4, 2, 77, 0.2)))
    )
    assert stall.cause is Cause.LOOP


def test_a_loop_that_computes_is_its_own_fault() -> None:
    stall = explain(seen({LOOP: (97, 0), HELPER: (3, 0)}, look(10.05, BUSY)))
    assert (stall.cause, stall.thread, stall.stack) == (Cause.LOOP, "MainThread", BUSY)


def test_a_loop_that_waits_in_a_callback_is_blocked() -> None:
    stall = explain(seen({LOOP: (0, 0), HELPER: (1, 0)}, look(10.05, BUSY)))
    assert (stall.cause, stall.stack) == (Cause.BLOCKED, BUSY)
    assert stall.own_ms == pytest.approx(100)


def test_who_computes_while_nobody_can_look_holds_the_interpreter() -> None:
    stall = explain(seen({LOOP: (0, 0), HELPER: (96, 0), COMPUTE: (2, 0)}, look(10.11, IDLE, held_up=True)))
    assert (stall.cause, stall.thread, stall.stack) == (Cause.INTERPRETER, "helper", PARSING)
    assert stall.own_ms == pytest.approx(96)


def test_threads_that_take_turns_hold_it_together() -> None:
    assert (
        explain(seen({LOOP: (1, 0), HELPER: (50, 0), COMPUTE: (45, 0)}, look(10.05, BUSY))).cause is Cause.INTERPRETER
    )


@pytest.mark.parametrize(
    "evidence",
    [
        pytest.param(seen({LOOP: (2, 95), HELPER: (90, 0)}), id="the loop waits for a processor"),
        pytest.param(seen({LOOP: (0, 0), HELPER: (10, 88)}), id="who holds the interpreter waits for a processor"),
        pytest.param(seen({LOOP: (0, 0), HELPER: (0, 0)}), id="nothing runs at all"),
        pytest.param(
            seen({LOOP: (0, 0), HELPER: (45, 0), COMPUTE: (45, 0)}, look(10.11, IDLE, held_up=True)),
            id="several compute, and none for long enough by itself",
        ),
        pytest.param(
            seen({LOOP: (0, 0), HELPER: (0, 60), COMPUTE: (90, 0)}, look(10.11, IDLE, held_up=True)),
            id="one computes, and another that may hold the interpreter has no processor",
        ),
        pytest.param(
            seen({LOOP: (0, 0), WATCHER: (0, 60), COMPUTE: (90, 0)}, look(10.11, IDLE, held_up=True)),
            id="who would look waits for a processor",
        ),
        pytest.param(
            seen({LOOP: (0, 0), COMPUTE: (90, 0)}, look(10.05, IDLE)), id="others compute, with the interpreter free"
        ),
        pytest.param(
            seen({LOOP: (0, 0), HELPER: (0, 0)}, look(10.05, BUSY, state="R")), id="the loop would run, and does not"
        ),
        pytest.param(
            seen({HELPER: (8, 90)}, collections=(Collection(10.0, 10.1, 2, 77, 0.01),)),
            id="who collects waits for a processor",
        ),
    ],
)
def test_what_the_machine_does_is_not_of_our_own_making(evidence: PauseEvidence) -> None:
    stall = explain(evidence)
    assert stall.cause is Cause.MACHINE
    assert stall.own_ms < 50


def test_where_the_kernel_says_nothing_everything_counts_as_our_own() -> None:
    assert explain(seen({})).own_ms == pytest.approx(100)
    assert explain(seen({}, look(10.05, BUSY))).cause is Cause.BLOCKED
    collected = explain(seen({}, collections=(Collection(10.0, 10.09, 2, 77, 0.085),)))
    assert (collected.cause, collected.thread) == (Cause.COLLECTOR, "helper")
