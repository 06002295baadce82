"""What a process that has resolved collects, and what it leaves alone. Each in an interpreter of its own."""

import json
import subprocess
import sys
from typing import Any

from engine.runtime.stalls.collector import LIVES_LONG, THRESHOLDS

# Objects that a full collection may visit: what is here to stay, and what comes between two collections.
MOST_VISITED = LIVES_LONG + 2 * THRESHOLDS[0] * (THRESHOLDS[1] + 1) * (THRESHOLDS[2] + 1)

BEFORE = """
import gc, json, weakref
from engine.runtime.stalls.collector import freeze_long_lived
class Node:
    def __init__(self): self.other = None
"""


def run(script: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", BEFORE + script], capture_output=True, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_what_was_there_is_frozen_and_garbage_is_gone() -> None:
    said = run("""
one, two = Node(), Node()
one.other, two.other = two, one
gone = weakref.ref(one)
del one, two
kept = [Node() for _ in range(50_000)]
freeze_long_lived()
print(json.dumps({"frozen": gc.get_freeze_count(), "tracked": len(gc.get_objects()), "gone": gone() is None}))
""")
    assert said["frozen"] > 50_000
    assert said["tracked"] < 500
    assert said["gone"]


def test_what_grows_is_frozen_as_it_grows_so_that_no_collection_visits_much() -> None:
    said = run("""
freeze_long_lived()
visited = []
def note(phase, info):
    if phase == "start" and info["generation"] == 2:
        visited.append(len(gc.get_objects()))
gc.callbacks.append(note)
kept = [Node() for _ in range(200_000)]
print(json.dumps({"most": max(visited), "times": len(visited), "left": len(gc.get_objects())}))
""")
    assert said["times"] > 10
    assert said["most"] <= MOST_VISITED
    assert said["left"] <= MOST_VISITED


def test_cycles_that_come_and_go_are_collected() -> None:
    said = run("""
freeze_long_lived()
watched = []
for _ in range(30_000):
    one, two = Node(), Node()
    one.other, two.other = two, one
    watched.append(weakref.ref(one))
print(json.dumps({"alive": sum(ref() is not None for ref in watched)}))
""")
    assert said["alive"] <= MOST_VISITED


def test_a_frozen_object_is_freed_by_its_reference_count() -> None:
    said = run("""
node = Node()
gone = weakref.ref(node)
freeze_long_lived()
del node
print(json.dumps({"gone": gone() is None}))
""")
    assert said["gone"]


def test_settling_again_adds_no_second_callback() -> None:
    assert (
        run("freeze_long_lived(); freeze_long_lived(); print(json.dumps({'callbacks': len(gc.callbacks)}))")[
            "callbacks"
        ]
        == 1
    )
