"""The straightforward wiring hosted by LitServe: `python -m engine_bench.peers.litserve_server SETTINGS`.

As its documentation shows: a LitAPI that loads in `setup` and answers in `predict`, JSON over HTTP. Batching stays off,
its default: a request ranks a thousand candidates in one call already, and waiting for company costs latency.
"""

import os
import sys
from typing import Any

import litserve

from engine_bench.peers.http_service import SETTINGS_VARIABLE, HttpService, end_with_standard_input
from engine_bench.peers.settings import PeerSettings


class RecommendApi(litserve.LitAPI):  # type: ignore[misc]
    """One worker process."""

    def setup(self, device: str) -> None:
        self.service = HttpService()

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        return request

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.service.answer(request)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


def serve(settings: PeerSettings) -> None:
    """Serve until terminated."""
    os.environ[SETTINGS_VARIABLE] = settings.text()
    server = litserve.LitServer(
        RecommendApi(api_path="/inference"), accelerator="cpu", devices=1, workers_per_device=settings.workers
    )
    server.run(host="127.0.0.1", port=settings.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    end_with_standard_input()
    serve(PeerSettings.parse(sys.argv[1]))
