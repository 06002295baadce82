"""The topics that the engine declares, made and checked."""

import time
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from engine.adapters.kafka.client import ClientErrors, extra_properties, look_up, open_client
from engine.config.stream import KafkaConfig
from engine.errors import DependencyUnavailable
from engine.stream.topics import TOPICS, Topic

_POLL_S: Final = 0.1
_ADMIN_TIMEOUT_S: Final = 10.0
_BROKER_DEFAULT: Final = -1


def create_topics(brokers: str, config: KafkaConfig, replication_factor: int = _BROKER_DEFAULT) -> list[Topic]:
    """Make the declared topics that are missing; returns those made, once the brokers show all of them.

    Two callers at once are no trouble: a topic that the other one has made first is there.

    Args:
        replication_factor: replicas of each partition; -1: the brokers' default.

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
