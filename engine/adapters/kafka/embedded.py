"""A Kafka broker inside this process, for development and tests: the real protocol over TCP, and nothing on disk.

It is the mock cluster that librdkafka is itself tested with. Clients of any process can produce, consume, and share
work in consumer groups. Its limits: each partition keeps its newest 5 MB, topics cannot be made through the protocol
(those of the engine are there from the start), and a fetch that finds nothing is answered after the consumer's
`fetch.wait.max.ms` even when a message comes meanwhile, so that consumers should keep that short.
"""

import ctypes
import fcntl
import functools
import logging
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

from confluent_kafka import KafkaException, Producer, cimpl

from engine.errors import DependencyUnavailable
from engine.stream.topics import TOPICS

log = logging.getLogger(__name__)

_START_TIMEOUT_S: Final = 10.0
_PRODUCER: Final = 0
_CONF_OK: Final = 0
_BROKER_ID: Final = 1
_CLUSTER_ID: Final = b"mockCluster"
_CLUSTER_ID_BYTES: Final = 32
# librdkafka waits 3 s for further members, as a real broker does; a development set-up should be up at once.
_REBALANCE_DELAY_MS: Final = 50


class EmbeddedKafka:
    """One development broker for all processes that open the same directory; a context manager.

    The first process that opens a directory runs the broker and owns it, and all messages are gone when it closes.
    Processes that open the directory meanwhile use that broker; when the owner goes away, they have to be restarted.

    Raises:
        DependencyUnavailable: the broker of another process cannot be reached.
    """

    def __init__(self, directory: Path, topic_prefix: str = "") -> None:
        """Args: topic_prefix: put before the names of the topics, where this process owns the broker."""
        self._topic_prefix = topic_prefix
        home = directory.resolve()
        home.mkdir(parents=True, exist_ok=True)
        self._address = home / "brokers"
        self._client: int | None = None
        self._cluster: int | None = None
        self._lock: TextIO | None = _own(home)
        if self._lock is None:
            self.brokers = self._find()
            return
        self._address.unlink(missing_ok=True)
        self.brokers = self._start()
        written = home / "brokers.new"
        written.write_text(self.brokers)
        written.rename(self._address)
        log.info("embedded Kafka at %s: it keeps nothing on disk", self.brokers)

    @property
    def owned(self) -> bool:
        """Whether the broker runs in this process."""
        return self._client is not None

    def set_reachable(self, reachable: bool) -> None:
        """Segment every connection and refuse new ones, or let them in again: what an outage does. Owner only."""
        set_state = _library().rd_kafka_mock_broker_set_up if reachable else _library().rd_kafka_mock_broker_set_down
        set_state(self._cluster, _BROKER_ID)

    def _start(self) -> str:
        library = _library()
        text = ctypes.create_string_buffer(512)
        settings = library.rd_kafka_conf_new()
        for name, value in ((b"test.mock.num.brokers", b"1"), (b"log_level", b"3")):
            if library.rd_kafka_conf_set(settings, name, value, text, len(text)) != _CONF_OK:
                raise DependencyUnavailable(f"the embedded Kafka does not start: {text.value.decode()}")
        client = library.rd_kafka_new(_PRODUCER, settings, text, len(text))
        if not client:
            raise DependencyUnavailable(f"the embedded Kafka does not start: {text.value.decode()}")
        self._client = client
        self._cluster = library.rd_kafka_handle_mock_cluster(client)
        _name_cluster(self._cluster)
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, _REBALANCE_DELAY_MS)
        for topic in TOPICS:
            name = (self._topic_prefix + topic.name).encode()
            library.rd_kafka_mock_topic_create(self._cluster, name, topic.partitions, 1)
        brokers: bytes = library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return brokers.decode()

    def _find(self) -> str:
        """The address that the owner has written; one left by an earlier owner does not answer and is read again."""
        give_up = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < give_up:
            brokers = self._address.read_text() if self._address.exists() else ""
            if brokers and _answers(brokers):
                return brokers
            time.sleep(0.02)
        raise DependencyUnavailable(f"the embedded Kafka of another process does not answer; see {self._address}")

    def close(self) -> None:
        """Stop the broker, where this process owns it; all messages are gone. Safe to call twice."""
        if self._client is not None:
            self._address.unlink(missing_ok=True)
            _library().rd_kafka_destroy(self._client)
            self._client = self._cluster = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "EmbeddedKafka":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _name_cluster(cluster: int) -> None:
    """Give the cluster an id that no other one has: two in a row can lie at one address, which their ids are made of.

    Two logs with one id would be taken for the same. The id is what librdkafka's mock cluster begins with; where it is
    not found there, it stays as it is.
    """
    place = (ctypes.c_char * _CLUSTER_ID_BYTES).from_address(cluster)
    if place.value.startswith(_CLUSTER_ID):
        place.value = _CLUSTER_ID + uuid.uuid4().hex[:16].encode()


def _own(home: Path) -> TextIO | None:
    """The directory's lock; None where another process holds it."""
    lock = (home / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _answers(brokers: str) -> bool:
    try:
        Producer({"bootstrap.servers": brokers, "log_level": 0}).list_topics(timeout=1.0)
    except KafkaException:
        return False
    return True


@functools.cache
def _library() -> Any:
    """librdkafka as confluent-kafka has loaded it: the Python binding has no calls to make topics in its broker."""
    library = ctypes.CDLL(cimpl.__file__)
    pointer, text, integer = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, ()),
        ("rd_kafka_conf_set", integer, (pointer, text, text, text, ctypes.c_size_t)),
        ("rd_kafka_new", pointer, (integer, pointer, text, ctypes.c_size_t)),
        ("rd_kafka_destroy", None, (pointer,)),
        ("rd_kafka_handle_mock_cluster", pointer, (pointer,)),
        ("rd_kafka_mock_cluster_bootstraps", text, (pointer,)),
        ("rd_kafka_mock_topic_create", integer, (pointer, text, integer, integer)),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_broker_set_up", integer, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_broker_set_down", integer, (pointer, ctypes.c_int32)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
