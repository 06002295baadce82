"""The servers that the engine needs: the operator's, or private ones of this machine."""

from collections.abc import Iterator
from contextlib import contextmanager

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.redis.connect import check_url
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.config.serving import EngineConfig


@contextmanager
def kafka_brokers(config: EngineConfig) -> Iterator[str]:
    """The operator's Kafka, or a development broker of this machine for as long as the context lasts."""
    if config.kafka.brokers:
        yield config.kafka.brokers
    else:
        with EmbeddedKafka(config.kafka.directory, config.kafka.topic_prefix) as broker:
            yield broker.brokers


def log_name(config: EngineConfig, brokers: str) -> str:
    """What the positions in the log are filed under: the configured name; an embedded log is another one each time."""
    if config.processor.log or config.kafka.brokers:
        return config.processor.log
    return f"embedded-{brokers.replace(':', '-')}"


@contextmanager
def redis_url(config: EngineConfig) -> Iterator[str]:
    """The operator's Redis, or a private one for as long as the context lasts. Raises ConfigError for no URL."""
    if config.redis.url:
        check_url(config.redis.url)
        yield config.redis.url
    else:
        with EmbeddedRedis(config.redis.directory) as server:
            yield server.url
