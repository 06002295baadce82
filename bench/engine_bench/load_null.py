"""A server that does nothing: `python -m engine_bench.load_null` prints its port and answers with the same 50 items.

What a load generator measures of it is the generator, gRPC and the machine. Ends when its standard input does.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import uvloop

from engine_bench.child import port_printing
from engine_bench.load_target import ITEM_COUNT, METHOD
from engine_client.v1 import recommendation_pb2 as pb


@contextmanager
def null_server() -> Iterator[str]:
    """The server in a process of its own, for as long as the context lasts; yields its address."""
    with port_printing("engine_bench.load_null") as (_, address):
        yield address


async def _serve() -> None:
    items = [
        pb.RecommendedItem(item_id=f"item-{number:07d}", score=0.5, position=number + 1, propensity=1.0)
        for number in range(ITEM_COUNT)
    ]
    answer = pb.RecommendResponse(items=items, bundle_version="null", request_id="0" * 32).SerializeToString()

    async def recommend(_: bytes, context: Any) -> bytes:
        return answer

    _, service, method = METHOD.split("/")
    server = grpc.aio.server()
    handlers = {method: grpc.unary_unary_rpc_method_handler(recommend)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(_serve())
