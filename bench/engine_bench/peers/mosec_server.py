"""The straightforward wiring hosted by mosec: `python -m engine_bench.peers.mosec_server SETTINGS`.

As its documentation shows: a Worker that loads when it is made and answers in `forward`, JSON over HTTP. Batching stays
off, its default: a request ranks a thousand candidates in one call already, and waiting for company costs latency.
"""

import os
import signal
import sys
import threading
import time
from typing import Any

import mosec
import redis

from engine_bench.peers.naive import Naive, NaiveRequest
from engine_bench.peers.settings import PeerSettings

# Where the processes that mosec starts find their settings.
SETTINGS_VARIABLE = "PEER_SETTINGS"


class RecommendWorker(mosec.Worker):  # type: ignore[misc]
    """One worker process. Each of its calls blocks."""

    def __init__(self) -> None:
        """Open what the environment's SETTINGS_VARIABLE names."""
        super().__init__()
        settings = PeerSettings.parse(os.environ[SETTINGS_VARIABLE])
        self._naive = Naive(settings.bundle, settings.tiled)
        self._client = redis.Redis.from_url(settings.redis_url)

    def forward(self, request: dict[str, Any]) -> dict[str, Any]:
        """The fields of RecommendRequest by their names, `time_ms` for its time; items with id, score and position."""
        asked = NaiveRequest(
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


def serve(settings: PeerSettings) -> None:
    """Serve until terminated."""
    # Its command line can come from the environment, too.
    os.environ |= {
        SETTINGS_VARIABLE: settings.text(),
        "MOSEC_ADDRESS": "127.0.0.1",
        "MOSEC_PORT": str(settings.port),
        "MOSEC_LOG_LEVEL": "error",
    }
    server = mosec.Server()
    server.append_worker(RecommendWorker, num=settings.workers)
    server.run()


def end_with_standard_input() -> None:
    """End this process and all of its group once its standard input has ended: whoever measured it is gone."""

    def watch() -> None:
        # Not through sys.stdin, whose lock a process forked meanwhile would wait for in vain.
        while os.read(0, 1024):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with_standard_input()
    serve(PeerSettings.parse(sys.argv[1]))
