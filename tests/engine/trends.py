"""Events written into a real Redis by the stream processor's own writer."""

import uuid
from collections.abc import Sequence

from engine.adapters.redis.state import RedisLiveStore
from engine.config.serving import RedisConfig
from engine.config.stream import ProcessorConfig
from engine.contract.events import encode
from engine.stream.events import read_events
from engine.stream.live import LiveSink
from engine.stream.protocols import Message
from engine.stream.state import Limits
from engine.stream.topics import EVENTS
from tests.engine.stream.conftest import NOW_MS, make_event
from tests.engine.stream.logs import log_now, nexts

__all__ = ["NOW_MS", "write_events"]


def write_events(url: str, log: str, picks: Sequence[tuple[str, int]], surface: str = "home") -> None:
    """One click for each (item id, time in ms), each by a user of their own, over all partitions."""
    processor = ProcessorConfig()
    store = RedisLiveStore(url, RedisConfig(), processor, log, lambda: None)
    sink = LiveSink(store, log, Limits(), processor.popular_items)
    following = {part: start or 0 for part, start in nexts(sink.positions(range(EVENTS.partitions), log_now())).items()}
    messages = []
    for number, (item, time_ms) in enumerate(picks):
        partition = number % EVENTS.partitions
        event = make_event(f"user-{uuid.uuid4().hex}", item, time_ms=time_ms, surface=surface)
        messages.append(Message(partition, following[partition], None, encode(event, time_ms)))
        following[partition] += 1
    sink.write(read_events(messages)[0])
    store.close()
