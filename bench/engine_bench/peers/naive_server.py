"""The straightforward wiring as a gRPC service: `python -m engine_bench.peers.naive_server SETTINGS` prints its port.

asyncio gRPC and asyncio redis-py in one process; what computes runs in the event loop's thread pool, where FAISS, ONNX
Runtime and NumPy can use the other cores. Ends when its standard input does.
"""

import asyncio
import sys
import time
from typing import Any

import grpc
import redis.asyncio
import uvloop

from engine_bench.peers.naive import Naive, NaiveRequest
from engine_bench.peers.settings import PeerSettings
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc


class NaiveServicer(pb_grpc.RecommendationServiceServicer):
    """The engine's own API, without its validation."""

    def __init__(self, naive: Naive, client: "redis.asyncio.Redis") -> None:
        self._naive = naive
        self._client = client

    async def Recommend(self, request: pb.RecommendRequest, context: Any) -> pb.RecommendResponse:  # noqa: N802
        async with self._client.pipeline(transaction=False) as pipeline:
            for key in self._naive.keys(request.user_id):
                pipeline.get(key)
            blobs = await pipeline.execute()
        slate = await asyncio.to_thread(self._naive.answer, _asked(request), blobs)
        items = []
        for position, (item_id, score) in enumerate(slate, start=1):
            item = pb.RecommendedItem(item_id=item_id, score=score, position=position, propensity=1.0)
            items.append(item)
        return pb.RecommendResponse(items=items, bundle_version=self._naive.version, request_id=request.request_id)


def _asked(request: pb.RecommendRequest) -> NaiveRequest:
    time_ms = request.context.time.ToMilliseconds() if request.context.HasField("time") else time.time_ns() // 1_000_000
    return NaiveRequest(
        request.user_id,
        request.surface,
        request.item_count or 50,
        time_ms,
        request.context.device,
        request.context.country,
        frozenset(request.exclude_item_ids),
        request.diversity_weight if request.HasField("diversity_weight") else None,
    )


async def serve(settings: PeerSettings) -> None:
    """Serve until standard input ends."""
    naive = Naive(settings.bundle, settings.tiled)
    client = redis.asyncio.Redis.from_url(settings.redis_url)
    server = grpc.aio.server()
    pb_grpc.add_RecommendationServiceServicer_to_server(NaiveServicer(naive, client), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)
    await client.aclose()


if __name__ == "__main__":
    uvloop.run(serve(PeerSettings.parse(sys.argv[1])))
