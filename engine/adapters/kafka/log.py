"""Which log a topic is at this moment: Kafka's cluster id and topic id, and what its partitions hold."""

import time
from collections.abc import Iterable
from typing import Any, Final

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from engine.adapters.kafka.client import ClientErrors, extra_properties, look_up, open_client
from engine.adapters.kafka.topics import check_partitions
from engine.config.stream import KafkaConfig
from engine.errors import DependencyUnavailable
from engine.stream.log_identity import Extent, LogIdentity, LogNow
from engine.stream.topics import Topic

_LOOK_S: Final = 5.0


class KafkaLog:
    """One topic of one cluster; belongs to one thread.

    Args:
        brokers: "host:port,…"; they need not be there.
    """

    def __init__(self, brokers: str, config: KafkaConfig, topic: Topic) -> None:
        own = {"bootstrap.servers": brokers, "client.id": config.client_id}
        backoff = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 1_000, "log.connection.close": False}
        self._errors = ClientErrors(brokers)
        self._admin = open_client(AdminClient, {**backoff, **extra_properties(config, own), **own}, self._errors)
        self._brokers = brokers
        self._topic = topic
        self._name = config.named(topic.name)

    def now(self, consumer: Any, partitions: Iterable[int]) -> LogNow:
        """The log, and the extents of these partitions as the consumer's brokers give them.

        Raises:
            DependencyUnavailable: Kafka does not answer, or has no such topic, or one with other partitions.

        Cost: two round trips, and two more a partition.
        """
        found = look_up(self._admin, self._errors, _LOOK_S, self._name)
        topic = found.topics.get(self._name)
        if topic is None or topic.error is not None or not topic.partitions:
            raise DependencyUnavailable(
                f"Kafka at {self._brokers} has no topic {self._name}: run `engine topics create`"
            )
        check_partitions(self._topic, self._name, len(topic.partitions))
        # librdkafka's own mock cluster has no controller, and so nobody to ask for a topic's id.
        has_ids = found.controller_id < 0 or found.controller_id in found.brokers
        identity = LogIdentity(found.cluster_id or "", self.topic_id() if has_ids else "")
        extents = {}
        try:
            for partition in partitions:
                ends = consumer.get_watermark_offsets(TopicPartition(self._name, partition), timeout=_LOOK_S)
                if ends is None:
                    raise DependencyUnavailable(f"Kafka at {self._brokers} does not say what {self._name} holds")
                extents[partition] = Extent(*ends)
        except KafkaException as error:
            raise self._errors.unavailable(error.args[0]) from error
        return LogNow(self._name, self._brokers, identity, extents)

    def topic_id(self) -> str:
        """The topic's id, another one each time that it is made; empty where Kafka gives none.

        Raises DependencyUnavailable. Cost: one round trip.
        """
        asked = self._admin.describe_topics(TopicCollection([self._name]), request_timeout=_LOOK_S)[self._name]
        try:
            # Kafka writes ids with the URL's letters.
            text = str(asked.result().topic_id or "").replace("+", "-").replace("/", "_")
        except KafkaException as error:
            self._admin.poll(0)
            raise self._errors.unavailable(error.args[0]) from error
        return "" if set(text) <= {"A"} else text


class TopicWatch:
    """Notices that a topic has been deleted and made again while it is read.

    What is fetched after that may be of the new log, and is not to be taken for what follows in the old one.
    """

    # While messages come they are looked at before they are used, but not more often than a topic can be made again.
    _BUSY_S: Final = 0.02
    # A poll that returns its maximum has a lag far above what a new log could hold by then.
    _FULL_S: Final = 0.25
    _IDLE_S: Final = 5.0

    def __init__(self, log: KafkaLog) -> None:
        self._log = log
        self._topic_id = ""
        self._looked_at = 0.0

    def begin(self, identity: LogIdentity) -> None:
        """From now on this is the log that is read."""
        self._topic_id = identity.topic
        self._looked_at = time.monotonic()

    def check(self, found: int, full: bool) -> None:
        """Look whether the topic is still the same, where it is time to. Raises DependencyUnavailable if not.

        Args:
            found: messages that have just been fetched. full: there were as many as there may be.
        """
        every_s = self._IDLE_S if not found else self._FULL_S if full else self._BUSY_S
        if time.monotonic() - self._looked_at < every_s:
            return
        topic_id = self._log.topic_id() if self._topic_id else self._topic_id
        if topic_id != self._topic_id:
            raise DependencyUnavailable("the topic has been made again")
        self._looked_at = time.monotonic()
