"""The startup bench in small: real processes over a real Redis, timed and weighed."""

import json
import mmap
import os
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from engine_bench import startup
from engine_bench.commands.bench import app
from engine_bench.startup import memory_of
from tests.ports import free_port


def test_a_small_run_from_end_to_end(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("b")  # a short name: Redis gets a socket in there
    monkeypatch.setattr(startup, "_USERS", 200)
    monkeypatch.setattr(startup, "_REQUESTS", 50)
    out = home / "startup.json"
    sizes = ["--items", "2000", "--repeats", "1", "--port", str(free_port(2))]
    result = CliRunner().invoke(app, ["startup", "--json", str(out), "--cache", str(home), *sizes])
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    (size,) = report["sizes"]
    assert size["items"] == 2_000
    assert 0 < size["start_s"]["lowest"] <= size["start_s"]["median"]
    assert len(size["memory"]) == 2
    for memory in size["memory"]:
        assert 20 < memory["own_mib"] <= memory["uss_mib"] <= memory["rss_mib"]
        assert memory["mapped_mib"] > 0
    assert [target["items"] for target in report["targets"]] == [2_000, 2_000]
    # Only the bundle stays for the next time.
    assert [path.name for path in home.iterdir() if path.is_dir()] == ["bundles-2000"]


def test_a_mapped_file_is_not_a_processs_own_until_it_is_written_to(tmp_path: Path) -> None:
    # So large that whatever else this process is doing meanwhile is little beside it.
    size_mib = 128
    path = tmp_path / "mapped"
    path.write_bytes(os.urandom(size_mib * 2**20))
    process = psutil.Process()
    before = memory_of(process)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = range(0, len(mapped), mmap.PAGESIZE)
        assert sum(mapped[page] for page in pages) > 0
        read = memory_of(process)
        # Nobody else has the file mapped, so that USS has it; it is the page cache's all the same.
        assert read["uss_mib"] - before["uss_mib"] > 0.9 * size_mib
        assert read["mapped_mib"] - before["mapped_mib"] > 0.9 * size_mib
        assert read["own_mib"] - before["own_mib"] < 0.5 * size_mib
        for page in pages:
            mapped[page] = 1
        assert memory_of(process)["own_mib"] - before["own_mib"] > 0.9 * size_mib
