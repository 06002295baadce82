"""A front end of a test, a process of its own: asks from several threads and holds every answer against its question.

Arguments: socket, seed, threads, requests of each. Prints how many were answered, late and refused; ends with 1 where
an answer is another request's.
"""

import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from engine.device.client import DeviceClient
from engine.device.remote import RemoteIndex, RemoteRanker
from engine.errors import DeadlineExceeded, EngineError
from engine.request.clock import request_deadline
from engine.types import RankingContext
from tests.engine.device import mirror
from tests.engine.device.serving import BUNDLE, OnlyBundle


def ask(index: RemoteIndex, ranker: RemoteRanker, seed: int, requests: int) -> tuple[int, int, int]:
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    answered = late = refused = 0
    for _ in range(requests):
        hurry = draw.random() < 0.1
        request_deadline.set(time.monotonic() + (draw.random() * 0.003 if hurry else 60.0))
        vectors = [rng.normal(size=width).astype(np.float32) for width in mirror.WIDTHS]
        context = RankingContext(*vectors, rng.integers(0, 1000, mirror.CODES))
        bad = draw.random() < 0.05
        if bad:
            context.query[0] = mirror.BAD
        try:
            if draw.random() < 0.5:
                eligible = rng.integers(0, 256, mirror.ITEMS // 8, np.uint8)
                rows, scores = index.search(context.query, draw.randint(1, mirror.ITEMS), eligible)
                expected = mirror.found(context.query, eligible, len(rows))
                same = np.array_equal(rows, expected[0]) and np.array_equal(scores, expected[1])
            else:
                rows = rng.integers(0, mirror.ITEMS, draw.randint(1, mirror.ITEMS))
                same = np.array_equal(ranker.score(context, rows), mirror.scored(context, rows))
        except DeadlineExceeded:
            assert hurry
            late += 1
        except EngineError:
            if not bad:
                raise
            refused += 1
        else:
            assert same, "the answer is another request's"
            assert not bad
            answered += 1
    return answered, late, refused


def main() -> None:
    path, seed, threads, requests = Path(sys.argv[1]), *map(int, sys.argv[2:])
    client = DeviceClient(path, BUNDLE, mirror.model().shape, 8 * threads)
    index = RemoteIndex(client, mirror.WIDTHS[0], np.zeros((mirror.ITEMS, mirror.WIDTHS[0]), np.float32))
    ranker = RemoteRanker(client, OnlyBundle(mirror.ITEMS))
    with ThreadPoolExecutor(threads) as pool:
        ends = list(pool.map(lambda thread: ask(index, ranker, seed * 1000 + thread, requests), range(threads)))
    print(*(sum(column) for column in zip(*ends, strict=True)))


if __name__ == "__main__":
    main()
