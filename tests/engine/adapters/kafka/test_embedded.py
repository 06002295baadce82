import logging
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from engine.adapters.kafka.bus import producer_settings
from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.config.stream import KafkaConfig
from engine.stream.topics import EVENTS, TOPICS
from tests.kafka import read_back

SEND = (
    "import sys; from pathlib import Path; from confluent_kafka import Producer;"
    "from engine.adapters.kafka.embedded import EmbeddedKafka;"
    "kafka = EmbeddedKafka(Path(sys.argv[1])); assert not kafka.owned;"
    "producer = Producer({'bootstrap.servers': kafka.brokers});"
    "producer.produce(sys.argv[2], b'from afar', b'k'); assert producer.flush(10) == 0; kafka.close()"
)


def test_no_two_brokers_have_one_cluster_id(tmp_path: Path) -> None:
    """Whoever keeps positions of a log must notice that another one has taken its place."""
    ids = set()
    for number in range(5):
        with EmbeddedKafka(tmp_path / str(number)) as kafka:
            ids.add(Producer({"bootstrap.servers": kafka.brokers}).list_topics(timeout=10).cluster_id)
    assert len(ids) == 5


def partitions(brokers: str) -> dict[str, int]:
    topics = Producer({"bootstrap.servers": brokers}).list_topics(timeout=10).topics
    return {name: len(topic.partitions) for name, topic in topics.items()}


def test_its_topics_are_as_declared_and_it_says_what_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), EmbeddedKafka(tmp_path) as kafka:
        assert partitions(kafka.brokers) == {topic.name: topic.partitions for topic in TOPICS}
    assert "keeps nothing on disk" in caplog.text


def test_another_process_finds_it(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as kafka:
        subprocess.run([sys.executable, "-c", SEND, str(tmp_path), EVENTS.name], check=True, timeout=60)
        assert [message.value() for message in read_back(KafkaConfig(brokers=kafka.brokers), {b"k"}, 1)] == [
            b"from afar"
        ]


def test_a_second_opener_shares_it_and_does_not_stop_it(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as owner:
        with EmbeddedKafka(tmp_path) as guest:
            assert guest.brokers == owner.brokers
            assert owner.owned
            assert not guest.owned
        assert partitions(owner.brokers)


def test_an_address_left_by_a_killed_owner_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "brokers").write_text("127.0.0.1:1")
    with EmbeddedKafka(tmp_path) as kafka:
        assert kafka.owned
        assert (tmp_path / "brokers").read_text() == kafka.brokers != "127.0.0.1:1"
    assert not (tmp_path / "brokers").exists()
    kafka.close()


def test_an_outage_and_its_end(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as kafka:
        kafka.set_reachable(False)
        with pytest.raises(KafkaException):
            Producer({"bootstrap.servers": kafka.brokers, "log_level": 0}).list_topics(timeout=0.5)
        kafka.set_reachable(True)
        producer = Producer(producer_settings(kafka.brokers, KafkaConfig()))
        producer.produce(EVENTS.name, b"after", b"k")
        assert producer.flush(10) == 0
