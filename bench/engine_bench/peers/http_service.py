"""The straightforward wiring for servers of one request at a time a process: what LitServe and mosec host."""

import os
import signal
import threading
import time
from typing import Any

import redis

from engine_bench.peers.naive import Asked, Naive
from engine_bench.peers.settings import PeerSettings

# Where the processes that such a server starts find their settings.
SETTINGS_VARIABLE = "PEER_SETTINGS"


class HttpService:
    """From a request's JSON to the answer's. Blocks."""

    def __init__(self) -> None:
        """Open what the environment's SETTINGS_VARIABLE names."""
        settings = PeerSettings.parse(os.environ[SETTINGS_VARIABLE])
        self._naive = Naive(settings.bundle, settings.tiled)
        self._client = redis.Redis.from_url(settings.redis_url)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The fields of RecommendRequest by their names, `time_ms` for its time; items with id, score and position."""
        asked = Asked(
            user_id=request["user_id"],
            surface=request["surface"],
            item_count=request.get("item_count", 50),
            time_ms=request.get("time_ms") or time.time_ns() // 1_000_000,
            device=request.get("device", ""),
            country=request.get("country", ""),
            excluded=frozenset(request.get("exclude_item_ids", ())),
            diversity_weight=request.get("diversity_weight"),
        )
        with self._client.pipeline(transaction=False) as pipeline:
            for key in self._naive.keys(asked.user_id):
                pipeline.get(key)
            slate = self._naive.answer(asked, pipeline.execute())
        items = [
            {"item_id": item_id, "score": score, "position": position}
            for position, (item_id, score) in enumerate(slate, start=1)
        ]
        return {"items": items, "bundle_version": self._naive.version}


def end_with_standard_input() -> None:
    """End this process and all of its group once its standard input has ended: whoever measured it is gone."""

    def watch() -> None:
        # Not through sys.stdin, whose lock a process forked meanwhile would wait for in vain.
        while os.read(0, 1024):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
