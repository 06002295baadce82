"""Make the Kafka topics that the engine needs."""

from engine.adapters.kafka.topics import create_topics
from engine.config.serving import EngineConfig
from engine.errors import ConfigError
from engine.stream.topics import Topic


def create_missing_topics(config: EngineConfig, replication_factor: int) -> list[Topic]:
    """Make the topics that are missing; returns those made, once the brokers show them.

    Raises ConfigError where the settings name no broker, DependencyUnavailable where none answers.
    """
    if not config.kafka.brokers:
        raise ConfigError("kafka.brokers: names no broker; the embedded one comes with its topics")
    return create_topics(config.kafka.brokers, config.kafka, replication_factor)
