"""A serving process that has said SERVING: its heap is frozen, nothing is left to import, old bundles go."""

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

from engine.bundle.store import BundleStore
from engine.runtime.stalls.collector import LIVES_LONG, THRESHOLDS
from tests.conftest import Trained

SCRIPT = """
import asyncio, gc, json, sys, time, weakref
from pathlib import Path
from engine.app.serve import running_server
from engine.bundle.store import BundleStore
from engine.catalog.live import LiveCatalogue
from engine.config.serving import EngineConfig
from engine_client import AsyncRecommendationClient
from engine_client import build_event
from engine.runtime.stalls.collector import freeze_long_lived
from engine_client.v1 import catalog_pb2
from engine_client.v1.event_pb2 import EVENT_TYPE_CLICK

async def main(settings):
    config = EngineConfig(**settings)
    said = {}
    catalogues = []
    made = LiveCatalogue.__init__
    def note(self, *rest, **more):
        made(self, *rest, **more)
        catalogues.append(weakref.ref(self))
    LiveCatalogue.__init__ = note
    async with running_server(config, freeze=freeze_long_lived) as server:
        said["frozen"], said["tracked"] = gc.get_freeze_count(), len(gc.get_objects())
        async with AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=60) as client:
            await client.wait_until_serving()
            known = set(sys.modules)
            for debug in (False, True):
                response = await client.recommend("nobody", "home", debug=debug)
            assert response.items
            try:
                await client.record_events([build_event("nobody", response.items[0].item_id, EVENT_TYPE_CLICK)])
            except Exception:
                pass  # without its topics Kafka takes none; what was imported is imported all the same
            await client.upsert_items([catalog_pb2.Item(item_id="new", title="new")])
            await client.update_inventory({response.items[0].item_id: False})
            said["imported"] = sorted(set(sys.modules) - known)
            gc.disable()
            BundleStore(config.bundle.directory).point_to("second")
            deadline = time.monotonic() + 120
            while len(catalogues) < 2 or catalogues[0]() is not None:
                if time.monotonic() > deadline:
                    break
                await client.recommend("nobody", "home")
                await asyncio.sleep(0.05)
            said["loaded"] = len(catalogues)
            said["old_is_gone"] = catalogues[0]() is None
    print(json.dumps(said))

asyncio.run(main(json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def said(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a server told of itself: at the start, after its first calls, and after a swap with the collector off."""
    home = tmp_path_factory.mktemp("resolved")
    store = BundleStore(home / "bundles")
    for name in ("first", "second"):
        shutil.copytree(trained.bundles.current(), store.directory / name)
    store.point_to("first")
    rules = home / "rules.yaml"
    rules.write_text('{"version": 1, "rules": []}')
    settings = {
        "server": {"host": "127.0.0.1", "port": 0, "request_timeout_ms": 20_000, "drain_s": 2},
        "redis": {"directory": str(home / "redis"), "timeout_ms": 5_000},
        "kafka": {"directory": str(home / "kafka")},
        "bundle": {"directory": str(store.directory), "poll_s": 0.05},
        "rules": {"file": str(rules), "poll_s": 0.2},
        "trending": {"poll_s": 0.2},
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(settings)], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_what_a_server_is_made_of_is_frozen_before_it_says_that_it_serves(said: dict[str, Any]) -> None:
    assert said["frozen"] > 100_000
    assert said["tracked"] <= LIVES_LONG + 2 * THRESHOLDS[0] * (THRESHOLDS[1] + 1) * (THRESHOLDS[2] + 1)


def test_the_first_calls_import_nothing(said: dict[str, Any]) -> None:
    assert said["imported"] == []


def test_a_bundle_that_was_replaced_is_freed_by_reference_counts_alone(said: dict[str, Any]) -> None:
    assert said["loaded"] == 2
    assert said["old_is_gone"]
