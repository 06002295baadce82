"""Whom load tests ask for: as many users as wanted, with sessions of a moment ago, over rules that do something."""

import itertools
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import redis

from engine.adapters.redis.keys import live_key
from engine.adapters.redis.store import RedisPublisher
from engine.bundle.bundle import Bundle
from engine.config.serving import EngineConfig, RedisConfig
from engine.data.dataset import Dataset
from engine.features.record import pack_session
from engine.features.seen import of_session, pack_seen
from engine.features.state import SeenItems, Session, UserRecord
from engine.publish.users import user_batches
from engine.stream.state import LiveState, pack_state
from engine.types import EventType, Int64Array
from engine_bench.world import SEED, WorldVectors

# Sessions are this long at most, and their events lie within this time before publishing: well inside the half hour
# that requests read, which the whole measurement must fit into.
_SESSION_EVENTS, _SESSION_MS = 20, 300_000
_SESSION_TYPES = np.array([EventType.VIEW, EventType.CLICK, EventType.CART], np.uint8)
_BATCH = 1_000


def publish_crowd(
    bundle: Bundle,
    dataset: Dataset,
    vectors: WorldVectors,
    url: str,
    user_count: int,
    now_ms: int,
    progress: Callable[[int, int], None],
) -> list[str]:
    """Records, seen sets and sessions of `user_count` users into Redis; returns their ids.

    The world has a few thousand users. Those with enough history are published again and again under further ids, with
    sessions of their own: to the server they are as many users, whose keys are as many and whose queries differ.

    Args:
        now_ms: Unix milliseconds at which the last event of every session has just happened.

    Cost: about 60 µs and 2 KB of Redis a user.
    """
    users = [
        user
        for batch in user_batches(bundle, dataset, vectors.user_vectors, vectors.user_vectors)
        for user in batch
        if user[1].interaction_count >= _SESSION_EVENTS
    ]
    draw = np.random.default_rng(SEED)
    user_ids: list[str] = []
    with (
        closing(RedisPublisher(url, RedisConfig(), EngineConfig.load().remembered_s)) as publisher,
        redis.Redis.from_url(url) as client,
    ):
        crowd = itertools.islice(_under_further_ids(users), user_count)
        while batch := list(itertools.islice(crowd, _BATCH)):
            publisher.publish(batch)
            with client.pipeline(transaction=False) as pipeline:
                for user_id, _, seen in batch:
                    session = _session(seen.item_keys, now_ms, draw)
                    live = LiveState.empty()._replace(
                        session=pack_session(session), seen=pack_seen(of_session(session))
                    )
                    pipeline.set(live_key(user_id), pack_state(live))
                pipeline.execute()
            user_ids += [user_id for user_id, _, _ in batch]
            progress(len(user_ids), user_count)
    return user_ids


def _under_further_ids(
    users: list[tuple[str, UserRecord, SeenItems]],
) -> "itertools.chain[tuple[str, UserRecord, SeenItems]]":
    return itertools.chain.from_iterable(
        ((f"{user_id}-{copy}", record, seen) for user_id, record, seen in users) for copy in itertools.count()
    )


def _session(keys: Int64Array, now_ms: int, draw: np.random.Generator) -> Session:
    """Some of the items that the user has dealt with before.

    Random items would mix into a taste that nobody has, for which an index that was calibrated on users finds less.
    """
    count = int(draw.integers(1, _SESSION_EVENTS + 1))
    times = np.sort(now_ms - draw.integers(0, _SESSION_MS, count))
    return Session(draw.choice(keys, count), draw.choice(_SESSION_TYPES, count), times)


def write_rules(path: Path, dataset: Dataset) -> None:
    """A deny, a boost and a cap that concern many items of this catalogue."""
    brands = dataset.items["brand"].drop_nulls().value_counts(sort=True)["brand"].to_list()
    categories = dataset.items["category"].drop_nulls().value_counts(sort=True)["category"].to_list()
    rules = [
        {"name": "withdrawn brand", "action": "deny", "items": {"brand": brands[-1]}},
        {"name": "season", "action": "boost", "factor": 1.2, "items": {"category": categories[0]}},
        {"name": "variety", "action": "cap", "by": "brand", "limit": 3, "window": 10},
    ]
    # JSON is YAML.
    path.write_text(json.dumps({"version": 1, "rules": rules}))
