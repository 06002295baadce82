"""The whole demonstration in a small world: real training, real processes, the page, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.errors import ConfigError
from engine_bench.demo.run import Demo, run_demo
from engine_bench.demo.world import World
from engine_bench.synthetic.world import WorldSize
from tests.conftest import SMALL_TRAINING
from tests.ports import free_port

SMALL = World(WorldSize(items=1_000, users=200), SMALL_TRAINING)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(work: Path) -> tuple[dict[str, Any], str]:
    """What it returns, and what it prints."""
    with (work / "output.txt").open("w") as file:
        console = Console(width=140, record=True, file=file)
        result = run_demo(Demo(None, work, True, free_port(), False, SMALL), console)
        return result, console.export_text()


def test_all_parts_are_there_and_say_what_they_show(first: tuple[dict[str, Any], str]) -> None:
    result, text = first
    known = result["recommendations"][0]
    assert known["strategy"] == "personalized"
    assert len(known["items"]) == 50
    assert 0 < known["in_main_categories_by_chance"] < 10
    assert f"{known['in_main_categories']} of 10 in this user's main categories (" in text
    assert {part["part"] for part in result["budgets"]} >= {"features", "rank", "whole request"}
    assert result["signals"]["share_after"] > result["signals"]["share_before"]
    assert result["catalogue"]["gone_ms"] > 0
    assert result["experiments"]["held_out"] > 0
    assert set(result["lift"]["lifts"]) >= {"request_ctr", "item_ctr"}
    assert "WARNING" not in text
    assert str(Path(result["page"]).resolve()) in text


def test_scores_explain_the_order(first: tuple[dict[str, Any], str]) -> None:
    result, text = first
    moved = 0
    for user in result["recommendations"]:
        for item in user["items"]:
            moved += item["relevance_position"] != item["position"]
        in_order = sorted(
            (item for item in user["items"] if item["relevance_position"]), key=lambda i: i["relevance_position"]
        )
        scores = [item["score"] for item in in_order if item["source"] != "exploration"]
        assert scores == sorted(scores, reverse=True)
    assert moved
    assert "by score" in text


def test_the_page_needs_nothing_else(first: tuple[dict[str, Any], str]) -> None:
    result, _ = first
    page = Path(result["page"]).read_text()
    assert not re.search(r"""(src|href)\s*=|@import|url\(|<script|<link|https?:""", page)
    for user in result["recommendations"]:
        assert user["user_id"] in page
    assert result["signals"]["category"] in page
    assert result["lift"]["headline"].split(".")[0][1:] in page  # a sentence begins with a capital


def test_a_port_that_is_taken_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        with pytest.raises(ConfigError, match=str(other.getsockname()[1])):
            run_demo(Demo(None, tmp_path, True, other.getsockname()[1], False, SMALL), Console(quiet=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serving_on_ends_with_0_and_the_bundle_is_used_again(
    number: signal.Signals, first: tuple[dict[str, Any], str], work: Path
) -> None:
    """As a terminal does it: SIGINT goes to the whole group, SIGTERM to the demonstration alone."""
    # The same data from canonical tables: nobody is simulated, which takes the most time.
    program = (
        "from pathlib import Path; from rich.console import Console; from engine_bench.demo.run import Demo, run_demo\n"
        "from tests.bench.demo.test_run import SMALL\n"
        f"work = Path({str(work)!r})\n"
        f"run_demo(Demo(work / 'data', work, False, {free_port()}, False, SMALL), Console(width=140))\n"
    )
    errors = work / "errors.txt"
    with errors.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if "until Ctrl-C" in line:
            break
    (os.killpg if number is signal.SIGINT else os.kill)(process.pid, number)
    process.stdout.read()
    assert process.wait(60) == 0, errors.read_text()
    assert "Traceback" not in errors.read_text()
    said = " ".join("".join(lines).split())
    assert "trained by an earlier run" in said
    assert "--train" in said
    with EmbeddedRedis(work / "redis") as left:  # nobody else has it any more
        assert left.pid is not None
