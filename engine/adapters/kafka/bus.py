"""The event log over Kafka: a producer whose answers are Kafka's own, and the making of topics."""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from engine.config.stream import KafkaConfig
from engine.contract.events import encode
from engine.errors import ConfigError, DependencyUnavailable, Overloaded
from engine.logs import OncePerInterval, Outage
from engine.stream.topics import EVENTS, TOPICS, Topic
from engine_client.v1 import event_pb2 as pb

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=30.0))
# librdkafka's own reports, of lost connections above all: several a second from each client of the process.
_client_log = logging.getLogger("engine.kafka")
# Who says it, from which thread, of which broker, and when, makes no other report of it.
_INCIDENTAL = re.compile(r"\[[^\]]*\]:?|\S*/(?:\d+|bootstrap|GroupCoordinator): |ipv[46]#\S+|\(after .*\)|\d+")
_client_log.addFilter(OncePerInterval(60.0, key=lambda record: _INCIDENTAL.sub("", record.getMessage())))

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


class ClientErrors:
    """Why a client has no connection, as far as its reports say: a call that waits for one merely times out.

    Reports come while the client polls, from whichever thread does.
    """

    def __init__(self, brokers: str) -> None:
        self._brokers = brokers
        self._last: KafkaError | None = None

    def heard(self, error: KafkaError) -> None:
        """A report (librdkafka's error_cb)."""
        # That all brokers are down comes after each of them has said why.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._last = error

    @property
    def refused(self) -> bool:
        """Whether brokers were reached and refused: waiting longer is of no use."""
        return self._last is not None and self._last.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL)

    def why(self, text: str) -> str:
        """The text, and behind it the last report, if there is one."""
        return text if self._last is None else f"{text}: {_reason(self._last)}"

    def explained(self, error: KafkaError) -> str:
        """What the error says, and why."""
        last = self._last
        if error.code() in _SAYS_ITSELF or last is None:
            return _reason(error)
        return _reason(last) if error.code() in _SAYS_NOTHING else f"{_reason(error)}: {_reason(last)}"

    def unavailable(self, error: KafkaError) -> DependencyUnavailable:
        """The error for who asked."""
        return DependencyUnavailable(f"Kafka at {self._brokers}: {self.explained(error)}")

    def works(self) -> None:
        """What was reported before is over."""
        self._last = None


# Errors that say no more than that there was no connection.
_SAYS_NOTHING: Final = (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN)
# Errors that are no consequence of another one.
_SAYS_ITSELF: Final = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._QUEUE_FULL, KafkaError._UNKNOWN_TOPIC)
_HINTS: Final = {
    KafkaError._AUTHENTICATION: "authentication failed (sasl.* in kafka.properties): ",
    KafkaError._SSL: "TLS failed (ssl.* and security.protocol in kafka.properties): ",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "not allowed for this user (the topic's access rules): ",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "not allowed for this user (the consumer group's access rules): ",
    KafkaError._UNKNOWN_TOPIC: "run `engine topics create`: ",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "run `engine topics create`: ",
}


# How long it took this time: the same failure, told apart from itself.
_AFTER: Final = re.compile(r"\(after .*\)")


def _reason(error: KafkaError) -> str:
    text = _AFTER.sub("", error.str() or "").strip()
    return f"{_HINTS.get(error.code(), '')}{text or error.name()}"


def look_up(client: Any, errors: ClientErrors, timeout_s: float, topic: str | None = None) -> Any:
    """The cluster's metadata, of one topic or of all, from a client that has no messages to poll.

    Raises DependencyUnavailable: no answer in time; at once where brokers refuse the client. Blocks.
    """
    give_up, patience_s = time.monotonic() + timeout_s, min(0.5, timeout_s)
    while True:
        try:
            # Without a topic's name the argument must be missing.
            found = client.list_topics(*(() if topic is None else (topic,)), timeout=patience_s)
        except KafkaException as error:
            client.poll(0)
            left_s = give_up - time.monotonic()
            if left_s <= 0 or errors.refused:
                raise errors.unavailable(error.args[0]) from error
            patience_s = min(2 * patience_s, max(left_s, 0.01))
        else:
            errors.works()
            return found


def open_client(kind: Callable[..., Any], settings: Mapping[str, Any], errors: ClientErrors) -> Any:
    """A client of this kind, its reports in the engine's log and in `errors`; ConfigError where librdkafka refuses a
    property.
    """
    try:
        return kind({**settings, "error_cb": errors.heard}, logger=_client_log)
    except KafkaException as error:
        raise ConfigError(f"kafka: {_reason(error.args[0])}") from error


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
    errors = ClientErrors(brokers)
    admin = open_client(AdminClient, {**extra_properties(config, own), **own}, errors)

    def missing_topics() -> list[Topic]:
        return _missing_topics(look_up(admin, errors, _ADMIN_TIMEOUT_S).topics, config)

    try:
        missing = missing_topics()
        requests = [new_topic(topic, config.named(topic.name), replication_factor) for topic in missing]
        asked = admin.create_topics(requests, request_timeout=_ADMIN_TIMEOUT_S) if requests else {}
        made = [topic for topic in missing if _is_made(asked[config.named(topic.name)])]
        # A broker that is asked next may not have heard of them yet.
        give_up = time.monotonic() + _ADMIN_TIMEOUT_S
        while missing and missing_topics():
            if time.monotonic() > give_up:
                raise DependencyUnavailable(f"Kafka at {brokers} does not show the topics that it has made")
            time.sleep(_POLL_S)
    except KafkaException as error:
        raise errors.unavailable(error.args[0]) from error
    return made


def _missing_topics(found: Mapping[str, Any], config: KafkaConfig) -> list[Topic]:
    """The declared topics that are not there; raises where one that is there has another partition count."""
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
