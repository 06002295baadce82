"""The event log over Kafka: a producer whose answers are Kafka's own, and the making of topics."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from engine.config import KafkaConfig
from engine.errors import ConfigError, DependencyUnavailable, Overloaded
from engine.stream.codec import encode
from engine.stream.topics import EVENTS, TOPICS, Topic
from engine.v1 import event_pb2 as pb

log = logging.getLogger(__name__)
# librdkafka's own reports, of lost connections above all.
_client_log = logging.getLogger("engine.kafka")

_POLL_S: Final = 0.1
_ADMIN_TIMEOUT_S: Final = 10.0
_BROKER_DEFAULT: Final = -1


class Record(NamedTuple):
    """One message: records with one key stay in order, in one partition."""

    key: bytes
    payload: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class KafkaProducer:
    """An idempotent producer for one event loop; close it at the end.

    It connects in the background: making one never fails and never waits.

    Args:
        brokers: "host:port,…".

    Raises:
        ConfigError: a property that librdkafka does not know, or that is the engine's to set.
    """

    def __init__(self, brokers: str, config: KafkaConfig) -> None:
        self._named = config.named
        self._settings = producer_settings(brokers, config)
        self._brokers = brokers
        self._timeout_s = config.delivery_timeout_ms / 1000
        self._limit = config.max_queued_events
        self._queued = 0
        self._producer = open_client(Producer, self._settings)
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="engine-kafka-poll", daemon=True)
        self._poller.start()

    async def publish(self, topic: Topic, records: Sequence[Record]) -> list[KafkaError | None]:
        """Hand the records to Kafka and wait for its word on each of them.

        Returns:
            For each record None once every in-sync replica has it, or what Kafka or the client said instead (test it
            with `is None`: comparing a KafkaError with None by == breaks the interpreter's error state). After an error
            a record may still be in the log (its acknowledgement was lost), so that sending it again can make
            a second message, though never out of order.

        Raises:
            Overloaded: the queue has no room for all of them; none was taken.

        Cost: about 2 µs a record on the event loop, and one wake-up for all of them.
        """
        if not records:
            return []
        if self._queued + len(records) > self._limit:
            raise Overloaded(f"the event log's queue is at its limit of {self._limit} events")
        delivery = _Delivery(len(records), asyncio.get_running_loop())
        self._queued += len(records)
        delivery.done.add_done_callback(partial(self._dequeue, len(records)))
        producer, name = self._producer, self._named(topic.name)
        for position, (key, payload, headers) in enumerate(records):
            settle = partial(delivery.settle, position)
            try:
                producer.produce(name, payload, key, on_delivery=settle, headers=list(headers))
            except BufferError:
                settle(KafkaError(KafkaError._QUEUE_FULL), None)
            except KafkaException as error:
                settle(error.args[0], None)
        # Shielded: a caller that gives up must not make the queue look shorter than it is.
        return await asyncio.shield(delivery.done)

    async def connect(self) -> None:
        """Wait for the connection, so that the first records need not, and see that the topics are as declared.

        Raises:
            DependencyUnavailable: no connection within the delivery timeout, or a topic is not as declared. The
                producer goes on trying: a server may start all the same.
        """
        try:
            found = (await asyncio.to_thread(self._producer.list_topics, timeout=self._timeout_s)).topics
        except KafkaException as error:
            raise DependencyUnavailable(f"Kafka at {self._brokers}: {error.args[0].str()}") from error
        for topic in TOPICS:
            name = self._named(topic.name)
            if name not in found:
                raise DependencyUnavailable(f"Kafka at {self._brokers} has no topic {name}: run `engine topics create`")
            check_partitions(topic, name, len(found[name].partitions))

    def close(self) -> None:
        """Wait for records on their way, at most for the delivery timeout; give up the rest. Blocks; call it once."""
        if self._producer.flush(self._timeout_s):
            self._producer.purge()
            self._producer.flush(_POLL_S)
        self._closing.set()
        self._poller.join()

    def _dequeue(self, count: int, _: object) -> None:
        self._queued -= count

    def _poll(self) -> None:
        while not self._closing.is_set():
            try:
                self._producer.poll(_POLL_S)
            except KafkaException as error:
                # What librdkafka calls fatal comes out of here, and a producer refuses everything after it.
                log.error("Kafka: %s; starting a new producer", error.args[0].str())
                self._replace()

    def _replace(self) -> None:
        broken, self._producer = self._producer, open_client(Producer, self._settings)
        # What the old one still holds is answered for with an error.
        broken.purge()
        broken.flush(_POLL_S)


class KafkaEventLog:
    """Appends events to the topic that the stream processor reads; what RecordEvents needs."""

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer

    async def append(self, events: Sequence[pb.Event], received_ms: int) -> None:
        """Return once Kafka has acknowledged every event.

        Raises:
            DependencyUnavailable: it has not acknowledged all of them in time. Overloaded: the queue is full.
        """
        records = [Record(event.user_id.encode(), encode(event, received_ms)) for event in events]
        errors = [error for error in await self._producer.publish(EVENTS, records) if error is not None]
        if errors:
            raise DependencyUnavailable(
                f"Kafka has not acknowledged {len(errors)} of {len(events)} events: {errors[0].str()}; send them again"
            )


class _Delivery:
    """Collects Kafka's word on each record of one batch, on the polling thread, and wakes its waiter once."""

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        self._errors: list[KafkaError | None] = [None] * count
        self._missing = count
        self._loop = loop
        self._lock = threading.Lock()
        self.done: asyncio.Future[list[KafkaError | None]] = loop.create_future()

    def settle(self, position: int, error: KafkaError | None, _: Any) -> None:
        with self._lock:
            self._errors[position] = error
            self._missing -= 1
            last = self._missing == 0
        if not last:
            return
        # A loop that is closed by now has nobody left who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.done.set_result, self._errors)


def producer_settings(brokers: str, config: KafkaConfig) -> dict[str, Any]:
    """librdkafka's properties for a producer that loses, repeats and reorders nothing.

    Raises:
        ConfigError: kafka.properties holds one that the engine sets itself.
    """
    own: dict[str, Any] = {
        "bootstrap.servers": brokers,
        "client.id": config.client_id,
        "acks": "all",
        "enable.idempotence": True,
        # The default of Kafka's other clients, so that a producer in any language puts a user into one partition.
        "partitioner": "murmur2_random",
        "linger.ms": config.linger_ms,
        "message.timeout.ms": config.delivery_timeout_ms,
        # `publish` counts and refuses by itself, before it takes any record of a batch.
        "queue.buffering.max.messages": config.max_queued_events + 1,
        "queue.buffering.max.kbytes": 1 << 20,
        "compression.type": "lz4",
        # Back within a second of the broker, instead of ten.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "socket.nagle.disable": True,
        # Brokers close idle connections as a matter of course.
        "log.connection.close": False,
    }
    return {**extra_properties(config, own), **own}


def open_client(kind: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    """A client of this kind, its reports in the engine's log; ConfigError where librdkafka refuses a property."""
    try:
        return kind(dict(settings), logger=_client_log)
    except KafkaException as error:
        raise ConfigError(f"kafka: {error.args[0].str()}") from error


def extra_properties(config: KafkaConfig, own: Mapping[str, Any]) -> dict[str, str]:
    """kafka.properties, for a client that sets `own` itself; ConfigError where the two meet."""
    for name in config.properties:
        if name in own:
            raise ConfigError(f"kafka.properties: {name} is the engine's to set")
    return dict(config.properties)


def create_topics(brokers: str, config: KafkaConfig, replication_factor: int = _BROKER_DEFAULT) -> list[Topic]:
    """Make the declared topics that are missing; returns those made, once the brokers show all of them.

    Two callers at once are no trouble: a topic that the other one has made first is there.

    Args:
        replication_factor: copies of each partition; -1 leaves it to the brokers.

    Raises:
        DependencyUnavailable: Kafka cannot be reached or refuses; a topic that is there has another partition count.
    """
    own = {"bootstrap.servers": brokers, "client.id": config.client_id}
    admin = open_client(AdminClient, {**extra_properties(config, own), **own})
    try:
        missing = _missing_topics(admin, config)
        requests = [new_topic(topic, config.named(topic.name), replication_factor) for topic in missing]
        asked = admin.create_topics(requests, request_timeout=_ADMIN_TIMEOUT_S) if requests else {}
        made = [topic for topic in missing if _is_made(asked[config.named(topic.name)])]
        # A broker that is asked next may not have heard of them yet.
        give_up = time.monotonic() + _ADMIN_TIMEOUT_S
        while missing and _missing_topics(admin, config):
            if time.monotonic() > give_up:
                raise DependencyUnavailable(f"Kafka at {brokers} does not show the topics that it has made")
            time.sleep(_POLL_S)
    except KafkaException as error:
        raise DependencyUnavailable(f"Kafka at {brokers}: {error.args[0].str()}") from error
    return made


def _missing_topics(admin: Any, config: KafkaConfig) -> list[Topic]:
    """The declared topics that are not there; raises where one that is there has another partition count."""
    found = admin.list_topics(timeout=_ADMIN_TIMEOUT_S).topics
    for topic in TOPICS:
        name = config.named(topic.name)
        if name in found:
            check_partitions(topic, name, len(found[name].partitions))
    return [topic for topic in TOPICS if config.named(topic.name) not in found]


def _is_made(answer: Any) -> bool:
    """Whether Kafka has made the topic, by its answer; False where it was there already."""
    try:
        answer.result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
        return False
    return True


def new_topic(topic: Topic, name: str, replication_factor: int = _BROKER_DEFAULT) -> NewTopic:
    """The declaration in Kafka's terms, under the name that the topic has there."""
    return NewTopic(
        name,
        num_partitions=topic.partitions,
        replication_factor=replication_factor,
        config={"cleanup.policy": "delete", "retention.ms": str(topic.retention_s * 1000)},
    )


def check_partitions(topic: Topic, name: str, found: int) -> None:
    """Raises DependencyUnavailable where the topic of this name has another number of partitions than declared."""
    if found != topic.partitions:
        raise DependencyUnavailable(
            f"Kafka's topic {name} has {found} partitions instead of {topic.partitions}: the engine has not made it "
            "(brokers with auto.create.topics.enable make topics by themselves). Delete the topic where nothing in it "
            "is needed, and run `engine topics create`; or set kafka.topic_prefix"
        )
