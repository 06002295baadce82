"""The serving pipeline over a private Redis, for whoever measures models without a server."""

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Final

import redis

from engine.adapters.redis.keys import live_key
from engine.adapters.redis.store import RedisPublisher
from engine.app.dependencies import redis_url
from engine.app.model import load_embedders
from engine.app.serve import open_pipeline
from engine.bundle.bundle import Bundle
from engine.config.serving import EngineConfig
from engine.data.dataset import Dataset
from engine.errors import EngineError
from engine.features.record import pack_session
from engine.features.state import Session
from engine.publish.users import publish_users
from engine.stream.state import LiveState, pack_state
from engine.types import Recommendation, RecommendQuery

# Nobody is waiting: a slow machine must not turn into a degraded answer.
PATIENCE_S: Final = 3600.0


@contextmanager
def published(
    bundle: Bundle, dataset: Dataset, config: EngineConfig, sessions: Iterable[tuple[str, Session]] = ()
) -> Iterator[None]:
    """Run the Redis of these settings with every user of a data set, for as long as the context lasts.

    Args:
        sessions: user ids and the events that the stream processor would have of them.
    """
    with redis_url(config) as url:
        embed, fold_in = load_embedders(bundle)
        with closing(RedisPublisher(url, config.redis, config.remembered_s)) as publisher:
            publish_users(bundle, dataset, embed, fold_in, publisher)
        with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipe:
            for user_id, session in sessions:
                pipe.set(live_key(user_id), pack_state(LiveState.empty()._replace(session=pack_session(session))))
            pipe.execute()
        yield


async def answers(config: EngineConfig, queries: Iterable[RecommendQuery]) -> AsyncIterator[Recommendation]:
    """The answer to each query, in their order. Raises EngineError where one is degraded."""
    async with open_pipeline(config) as pipeline:
        for query in queries:
            answer = await pipeline.recommend(query, time.monotonic() + PATIENCE_S)
            if answer.degraded_reasons:
                raise EngineError(f"evaluation met a degraded answer: {answer.degraded_reasons[0].name}")
            yield answer
