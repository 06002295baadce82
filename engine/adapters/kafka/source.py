"""A log read from Kafka, as a member of a consumer group; and where its poison messages go."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from engine.adapters.kafka.bus import producer_settings
from engine.adapters.kafka.client import ClientErrors, extra_properties, open_client
from engine.adapters.kafka.log import KafkaLog, TopicWatch
from engine.config.stream import KafkaConfig
from engine.errors import DependencyUnavailable, described
from engine.stream.log_identity import LogNow
from engine.stream.protocols import Message
from engine.stream.topics import DEAD_LETTERS, EVENTS, Topic

log = logging.getLogger(__name__)

_FLUSH_S: Final = 10.0


class KafkaSource:
    """Implements engine.stream.processor.Source for one topic; belongs to one thread.

    Assignments are eager and never read from the group's own offsets: `start` says where to read from.

    Args:
        batch: most messages that one `poll` returns.
        fetch_mb: most that librdkafka holds in memory ahead of `poll`.
    """

    def __init__(
        self, brokers: str, config: KafkaConfig, group: str, batch: int, fetch_mb: int, topic: Topic = EVENTS
    ) -> None:
        own: dict[str, Any] = {
            "bootstrap.servers": brokers,
            "client.id": config.client_id,
            "group.id": config.named(group),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # A position that is not in the log is an error: what is there instead is looked at before reading goes on.
            "auto.offset.reset": "error",
            "partition.assignment.strategy": "range",
            # An event should be in the next answer: nothing waits for company.
            "fetch.wait.max.ms": 20,
            "fetch.error.backoff.ms": 50,
            "queued.max.messages.kbytes": fetch_mb << 10,
            # A queue that was full is looked at again after this long: librdkafka's default is a second.
            "fetch.queue.backoff.ms": 20,
            "topic.metadata.refresh.interval.ms": 10_000,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "log.connection.close": False,
        }
        # Nobody reads the partitions of a processor that crashed until the group has noticed: ten seconds instead of
        # 45. And one that joins waits for everybody's next heartbeat.
        defaults = {"session.timeout.ms": "10000", "heartbeat.interval.ms": "1000"}
        self._errors = ClientErrors(brokers)
        self._consumer = open_client(Consumer, {**defaults, **extra_properties(config, own), **own}, self._errors)
        self._log = KafkaLog(brokers, config, topic)
        self._watch = TopicWatch(self._log)
        self._batch = batch
        self._topic = config.named(topic.name)
        self._assigned: tuple[int, ...] = ()
        self._on_revoked: Callable[[], None] = lambda: None
        self._on_lost: Callable[[], None] = lambda: None

    def subscribe(self, on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Join the group; the callbacks run inside `poll`, before partitions are given up."""
        self._on_revoked, self._on_lost = on_revoked, on_lost
        self._consumer.subscribe([self._topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose)

    @property
    def assigned(self) -> tuple[int, ...]:
        """The partitions that are ours."""
        return self._assigned

    def log(self, partitions: Iterable[int]) -> LogNow:
        """The log as it is now. `poll` raises once it is another one. Raises DependencyUnavailable."""
        now = self._log.now(self._consumer, partitions)
        self._watch.begin(now.identity)
        self._errors.works()
        return now

    def start(self, positions: Mapping[int, int]) -> None:
        """Read these partitions, and only these, from these offsets. What was fetched before is dropped."""
        places = [TopicPartition(self._topic, partition, offset) for partition, offset in positions.items()]
        try:
            self._consumer.assign(places)
        except KafkaException as error:
            raise self._errors.unavailable(error.args[0]) from error

    def poll(self, timeout_s: float) -> Sequence[Message]:
        """Up to `batch` messages: waits for the first, takes what is there besides. Raises DependencyUnavailable."""
        try:
            first = self._consumer.poll(timeout_s)
            if first is None:
                self._watch.check(0, full=False)
                return ()
            # consume() would wait for a full batch until its timeout: with none, it takes what is there.
            found = [first, *(self._consumer.consume(self._batch - 1, 0) if self._batch > 1 else ())]
        except KafkaException as error:
            raise self._errors.unavailable(error.args[0]) from error
        for message in found:
            if message.error() is not None:
                raise self._errors.unavailable(message.error())
        self._watch.check(len(found), full=len(found) == self._batch)
        new = tuple.__new__  # as Message(...) does it, without a function of Python's for each
        return [new(Message, (m.partition(), m.offset(), m.key(), m.value() or b"")) for m in found]

    def commit(self, positions: Mapping[int, int]) -> None:
        """Tell the group, without waiting for its answer: the sink knows better where to go on."""
        places = [TopicPartition(self._topic, partition, offset) for partition, offset in positions.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            raise self._errors.unavailable(error.args[0]) from error

    def lag(self) -> int:
        """Messages between the position and the end, over all partitions, as the last fetches reported them."""
        total = 0
        try:
            for place in self._consumer.position([TopicPartition(self._topic, part) for part in self._assigned]):
                ends = self._consumer.get_watermark_offsets(place, cached=True)
                if ends is not None and ends[1] >= 0:
                    total += max(0, ends[1] - max(place.offset, ends[0], 0))
        except KafkaException as error:
            log.debug("the lag is not known: %s", described(error))
        return total

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _assign(self, consumer: Any, partitions: Iterable[Any]) -> None:
        self._assigned = tuple(sorted(place.partition for place in partitions))
        # Nothing is read before `start`: without this, librdkafka would begin at the group's offsets.
        consumer.assign([])

    def _revoke(self, consumer: Any, _: Iterable[Any]) -> None:
        self._on_revoked()
        self._assigned = ()
        consumer.unassign()

    def _lose(self, consumer: Any, _: Iterable[Any]) -> None:
        self._on_lost()
        self._assigned = ()
        consumer.unassign()


class KafkaDeadLetters:
    """Implements engine.stream.processor.DeadLetters for messages of one topic; belongs to one thread."""

    def __init__(self, brokers: str, config: KafkaConfig, topic: Topic = EVENTS) -> None:
        self._topic, self._letters = config.named(topic.name), config.named(DEAD_LETTERS.name)
        self._errors = ClientErrors(brokers)
        self._producer = open_client(Producer, producer_settings(brokers, config), self._errors)

    def send(self, letters: Sequence[tuple[Message, str]]) -> None:
        """Deliver the messages as they came, with reason and origin in the headers; returns once Kafka has them.

        Sent again after a crash or an outage, so that a letter can be there twice: its origin says so.
        """
        errors: list[KafkaError] = []

        def acknowledge(error: KafkaError | None, _: Any) -> None:
            if error is not None:
                errors.append(error)

        for message, reason in letters:
            headers = [
                ("reason", reason.encode()),
                ("topic", self._topic.encode()),
                ("partition", str(message.partition).encode()),
                ("offset", str(message.offset).encode()),
            ]
            try:
                self._producer.produce(
                    self._letters, message.payload, message.key, headers=headers, on_delivery=acknowledge
                )
            except BufferError:
                raise DependencyUnavailable("Kafka does not take dead letters as fast as they come") from None
            except KafkaException as error:
                raise self._errors.unavailable(error.args[0]) from error
            log.warning("poison message at partition %d, offset %d: %s", message.partition, message.offset, reason)
        if self._producer.flush(_FLUSH_S) or errors:
            reason = self._errors.explained(errors[0]) if errors else "no answer in time"
            raise DependencyUnavailable(f"Kafka has not taken a dead letter: {reason}")
        self._errors.works()

    def close(self) -> None:
        """Give up what is still on its way."""
        self._producer.purge()
        self._producer.flush(0.1)
