"""The server of mosec, where it is installed, under the open loop."""

import json
import os
from dataclasses import replace

import psutil
import pytest

from engine_bench.child import http_serving
from engine_bench.load_driver import Status, drive, plan
from tests.bench.peers.conftest import Small
from tests.ports import free_port


async def test_a_server_answers_fifty_items_and_leaves_nothing_behind(small: Small) -> None:
    pytest.importorskip("mosec")
    pytest.importorskip("aiohttp")
    from engine_bench.peers.http_target import PATH, HttpTarget

    port = free_port()
    settings, address = replace(small.settings, port=port), f"127.0.0.1:{port}"
    probe = (PATH, json.dumps({"user_id": small.user_ids[0], "surface": "home"}).encode())
    with http_serving("engine_bench.peers.mosec_server", settings.text(), address, probe) as process:
        target = HttpTarget(address, small.now)
        schedule = plan("constant", 10.0, 1.0, len(small.user_ids), 0)
        try:
            await target.connect()
            record = await drive(target.asked_by(schedule, small.user_ids), schedule)
        finally:
            await target.close()
        # A machine that is busy may be late for one; an answer of fewer than 50 items would be OTHER.
        assert set(record.status.tolist()) <= {Status.OK, Status.DEADLINE}
        assert record.ok.sum() >= len(schedule) / 2
        group = process.pid
    assert not [found for found in psutil.process_iter() if _in_group(found, group)]


def _in_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
