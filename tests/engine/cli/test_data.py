"""`engine data check`, and the way of docs/your-data.md from a shop's export to a recommendation."""

import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner

from engine.cli.main import app
from engine_client import RecommendationClient
from tests.engine.data.frames import small_interactions, small_items

ROOT = Path(__file__).resolve().parents[3]


def check(directory: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", "check", str(directory), *options])
    return result.exit_code, result.output


def write(directory: Path, interactions: str | None = None, items: str | None = None) -> None:
    (directory / "interactions.csv").write_text(interactions or small_interactions().write_csv())
    (directory / "items.csv").write_text(items or small_items().write_csv())


def test_good_tables_have_a_profile_and_no_problem(tmp_path: Path) -> None:
    write(tmp_path)
    code, output = check(tmp_path)
    assert code == 0
    for wanted in ("no problems", "click", "4", "2023-11-14", "events of unknown items"):
        assert wanted in output


def test_every_problem_of_every_table_is_listed(tmp_path: Path) -> None:
    lines = "user_id,item_id,event_type,timestamp_ms,value\n"
    lines += "".join(f"u{row},a,buy,1700000000000,\n" for row in range(20))
    lines += "u,a,view,4070908800000,\nu,ghost,view,1700000000000,1\nu,a,view,soon,\n"
    write(tmp_path, lines, 'item_id,title\na,A\nb,"open\nc,C,x\n')
    code, output = check(tmp_path, "--json", str(tmp_path / "report.json"))
    assert code == 1
    report = json.loads((tmp_path / "report.json").read_text())
    places = {(Path(one["source"]).name, one["column"], one["examples"][0]["row"], one["count"])
              for one in report["problems"]}  # fmt: skip
    assert places == {
        ("items.csv", None, 2, 1), ("items.csv", None, 3, 1),
        ("interactions.csv", "event_type", 1, 20), ("interactions.csv", "timestamp_ms", 23, 1),
        ("interactions.csv", "timestamp_ms", 21, 1), ("interactions.csv", "value", 22, 1),
    }  # fmt: skip
    assert "(20 rows: 1, 2, 3, 4, 5, …)" in output
    assert "found '2099-01-01T00:00:00Z'" in output
    assert "6 problems" in output
    assert report["profile"]["events"] == 23
    assert report["profile"]["ahead_events"] == 1
    again = json.loads(check(tmp_path, "--json", "-")[1])
    assert [one["count"] for one in again["problems"]] == [one["count"] for one in report["problems"]]


def test_unknown_items_are_a_share(tmp_path: Path) -> None:
    write(tmp_path, items="item_id,title\na,A\nb,B\n")
    code, output = check(tmp_path)
    assert code == 1
    assert "25.00%" in output
    assert "no such item in" in output


def test_surfaces_are_those_of_the_serving_settings(tmp_path: Path) -> None:
    write(tmp_path, small_interactions().write_csv().replace("home", "lobby"))
    assert check(tmp_path)[0] == 1
    (tmp_path / "engine.toml").write_text("[surfaces.home]\n[surfaces.lobby]\n[surfaces.cart]\n")
    assert check(tmp_path, "--serving-config", str(tmp_path / "engine.toml"))[0] == 0


def documented() -> list[list[str]]:
    """The commands of the page, in order, without the list of all of them at its end."""
    page = (ROOT / "docs" / "your-data.md").read_text().partition("## All commands")[0]
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    return [
        shlex.split(line, comments=True) for block in blocks for line in block.splitlines() if "engine " in line[:7]
    ]


@contextmanager
def serving(command: list[str], cwd: Path, port: int) -> Iterator[None]:
    process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], cwd=cwd)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def test_from_a_shops_export_to_a_recommendation_by_the_page_alone(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    steps = [[sys.executable, "-m", *command] for command in documented()]
    assert [step[3] for step in steps] == ["import", "data", "train", "publish-users", "serve"]
    for step in steps[:-1]:
        done = subprocess.run(step, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serving(steps[-1], tmp_path, port), RecommendationClient(f"127.0.0.1:{port}", timeout_s=20.0) as client:
        client.wait_until_serving(120.0)
        answer = client.recommend("K105", "home", item_count=5, debug=True)
    assert len(answer.items) == 5
    assert answer.debug.known_user
