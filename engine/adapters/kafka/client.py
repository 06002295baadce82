"""What all clients of Kafka share: how one is opened, and what its errors mean."""

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from engine.config.stream import KafkaConfig
from engine.errors import ConfigError, DependencyUnavailable
from engine.logs import OncePerInterval

# librdkafka's own reports, of lost connections above all: several a second from each client of the process.
_client_log = logging.getLogger("engine.kafka")
# Who says it, from which thread, of which broker, and when, makes no other report of it.
_INCIDENTAL = re.compile(r"\[[^\]]*\]:?|\S*/(?:\d+|bootstrap|GroupCoordinator): |ipv[46]#\S+|\(after .*\)|\d+")
_client_log.addFilter(OncePerInterval(60.0, key=lambda record: _INCIDENTAL.sub("", record.getMessage())))


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
        """The text, followed by the last report, if there is one."""
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
    give_up, try_s = time.monotonic() + timeout_s, min(0.5, timeout_s)
    while True:
        try:
            # Without a topic's name the argument must be missing.
            found = client.list_topics(*(() if topic is None else (topic,)), timeout=try_s)
        except KafkaException as error:
            client.poll(0)
            left_s = give_up - time.monotonic()
            if left_s <= 0 or errors.refused:
                raise errors.unavailable(error.args[0]) from error
            try_s = min(2 * try_s, max(left_s, 0.01))
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
