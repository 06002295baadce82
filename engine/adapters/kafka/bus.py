"""The event log over Kafka: a producer whose answers are Kafka's own."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from engine.adapters.kafka.client import ClientErrors, extra_properties, look_up, open_client
from engine.adapters.kafka.topics import check_partitions
from engine.config.stream import KafkaConfig
from engine.contract.events import encode
from engine.errors import DependencyUnavailable, Overloaded
from engine.logs import OncePerInterval, Outage
from engine.stream.topics import EVENTS, TOPICS, Topic
from engine_client.v1 import event_pb2 as pb

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=30.0))
_POLL_S: Final = 0.1


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
        self._errors = ClientErrors(brokers)
        self._outage = Outage(log)
        self._producer = open_client(Producer, self._settings, self._errors)
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
            Overloaded: the queue cannot take all of them; none was taken.

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
            acknowledge = partial(delivery.acknowledge, position)
            try:
                producer.produce(name, payload, key, on_delivery=acknowledge, headers=list(headers))
            except BufferError:
                acknowledge(KafkaError(KafkaError._QUEUE_FULL), None)
            except KafkaException as error:
                acknowledge(error.args[0], None)
        # Shielded: a caller that gives up must not make the queue look shorter than it is.
        answers = await asyncio.shield(delivery.done)
        first = next((answer for answer in answers if answer is not None), None)
        if first is None:
            self._errors.works()
            self._outage.over(topic.name)
        else:
            lost = sum(answer is not None for answer in answers)
            self._outage.failed(topic.name, f"not taken by Kafka: {self._errors.explained(first)}", lost)
        return answers

    async def connect(self) -> None:
        """Wait for the connection, so that the first records need not, and see that the topics are as declared.

        Raises:
            DependencyUnavailable: no connection within the delivery timeout, or a topic is not as declared. The
                producer goes on trying: a server may start all the same.
        """
        found = (await asyncio.to_thread(look_up, self._producer, self._errors, self._timeout_s)).topics
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

    def explained(self, error: KafkaError) -> str:
        """What an error of `publish` says, and why, where the client knows."""
        return self._errors.explained(error)

    def _dequeue(self, count: int, _: object) -> None:
        self._queued -= count

    def _poll(self) -> None:
        while not self._closing.is_set():
            try:
                self._producer.poll(_POLL_S)
            except KafkaException as error:
                # What librdkafka calls fatal comes out of here, and a producer refuses everything after it.
                log.error("Kafka: %s; starting a new producer", self._errors.explained(error.args[0]))
                self._replace()

    def _replace(self) -> None:
        broken, self._producer = self._producer, open_client(Producer, self._settings, self._errors)
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
                f"Kafka has not acknowledged {len(errors)} of {len(events)} events: "
                f"{self._producer.explained(errors[0])}; send them again"
            )


class _Delivery:
    """Collects Kafka's word on each record of one batch, on the polling thread, and wakes its waiter once."""

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        self._errors: list[KafkaError | None] = [None] * count
        self._missing = count
        self._loop = loop
        self._lock = threading.Lock()
        self.done: asyncio.Future[list[KafkaError | None]] = loop.create_future()

    def acknowledge(self, position: int, error: KafkaError | None, _: Any) -> None:
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
