"""The straightforward wiring hosted by mosec: `python -m engine_bench.peers.mosec_server SETTINGS`.

As its documentation shows: a Worker that loads when it is made and answers in `forward`, JSON over HTTP. Batching stays
off, its default: a request ranks a thousand candidates in one call already, and waiting for company costs latency.
"""

import os
import sys
from typing import Any

import mosec

from engine_bench.peers.http_service import SETTINGS_VARIABLE, HttpService, end_with_standard_input
from engine_bench.peers.settings import PeerSettings


class RecommendWorker(mosec.Worker):  # type: ignore[misc]
    """One worker process."""

    def __init__(self) -> None:
        super().__init__()
        self.service = HttpService()

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        return self.service.answer(data)


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


if __name__ == "__main__":
    end_with_standard_input()
    serve(PeerSettings.parse(sys.argv[1]))
