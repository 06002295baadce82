"""A real Kafka broker on this machine, for tests and for trying things: `python -m deploy.local_kafka`.

One KRaft node (broker and controller in one process) from the jars of Maven Central, on free ports of the loopback
interface. Needs java (17 or newer) and mvn. Maven's own cache keeps the jars.

    python -m deploy.local_kafka                          run until Ctrl-C or SIGTERM
    python -m deploy.local_kafka --version 3.9.1 -- CMD   run CMD with KAFKA_BROKERS and KAFKA_SASL_BROKERS (PLAIN, user
                                                          "engine", password "secret") set; exit with its status
"""

import argparse
import base64
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

DEFAULT_VERSION: Final = "4.3.1"
# Who may log in at the listener that asks for a password.
USER, PASSWORD = "engine", "secret"
_JARS: Final = Path(__file__).resolve().parents[1] / "var" / "kafka-jars"
_START_TIMEOUT_S: Final = 120.0
_STOP_TIMEOUT_S: Final = 30.0
_POM: Final = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka-broker</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{version}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""
# What else binds slf4j would win over slf4j-simple by chance.
_EXCLUDED: Final = "slf4j-reload4j,log4j-slf4j-impl,log4j-slf4j2-impl"
# Small, and quick to start: a broker for minutes, not for months.
_JAVA: Final = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
log.dirs={logs}
num.partitions=1
auto.create.topics.enable={auto_create}
offsets.topic.num.partitions=2
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=1000
"""


class KafkaMissing(Exception):
    """What a local broker needs is not on this machine; the text says what."""


class LocalKafka:
    """One broker as a child process; a context manager. Its log lasts as long as its directory.

    Args:
        home: the broker's settings, log and data; a directory of its own.
        version: of Apache Kafka.
        auto_create: whether the broker makes a topic that somebody asks for, with one partition.

    Raises:
        KafkaMissing: java or mvn is not there, the jars cannot be had, or the broker does not start.
    """

    def __init__(self, home: Path, version: str = DEFAULT_VERSION, auto_create: bool = False) -> None:
        self.version = version
        self._home = home.resolve()
        self._home.mkdir(parents=True, exist_ok=True)
        self._jars = fetch_jars(version)
        port, self._sasl_port, controller = _free_ports(3)
        self.brokers = f"127.0.0.1:{port}"
        self._settings = self._home / "server.properties"
        self._settings.write_text(
            _PROPERTIES.format(
                port=port,
                sasl=self._sasl_port,
                controller=controller,
                user=USER,
                password=PASSWORD,
                logs=self._home / "data",
                auto_create=str(auto_create).lower(),
            )
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._format()
        self.start()

    @property
    def sasl_brokers(self) -> str:
        """The address of the listener that asks for USER and PASSWORD (SASL_PLAINTEXT, PLAIN)."""
        return f"127.0.0.1:{self._sasl_port}"

    @property
    def pid(self) -> int:
        """The broker's process."""
        assert self._process is not None, "the broker does not run"
        return self._process.pid

    def start(self) -> None:
        """Start the broker over what its directory holds; returns once it answers."""
        with (self._home / "broker.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._settings)),
                stdout=output,
                stderr=output,
                # Ctrl-C is for who has started it, and decides.
                start_new_session=True,
            )
        give_up = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise KafkaMissing(f"Kafka {self.version} does not start: see {self._home / 'broker.log'}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the broker in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker at once, as a crash of its machine would; `start` brings it back."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Have the broker do nothing, with all its connections open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> "LocalKafka":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self.thaw()
            self._process.send_signal(how)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", int(self.brokers.rpartition(":")[2])), timeout=1.0):
                pass
            AdminClient({"bootstrap.servers": self.brokers, "log_level": 0}).list_topics(timeout=2.0)
        except (OSError, KafkaException):
            return False
        return True

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # An id that begins with a dash would be read as an option.
        command = ["format", "--ignore-formatted", f"--cluster-id={cluster}", "--config", str(self._settings)]
        done = subprocess.run(self._java("kafka.tools.StorageTool", *command), capture_output=True, text=True)
        if done.returncode:
            raise KafkaMissing(f"Kafka's storage cannot be made: {done.stderr.strip() or done.stdout.strip()}")

    def _java(self, main: str, *arguments: str) -> list[str]:
        return [
            "java",
            *_JAVA,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            f"{self._jars}/*",
            main,
            *arguments,
        ]


def fetch_jars(version: str) -> Path:
    """The directory with a broker's jars, fetched by Maven where they are not there yet.

    Raises KafkaMissing: java or mvn is not there, or Maven cannot fetch them.
    """
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            raise KafkaMissing(f"a local Kafka needs {tool}, which is not on the PATH")
    home = _JARS / version
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (home / "complete").exists():
            return home / "jars"
        (home / "pom.xml").write_text(_POM.format(version=version))
        print(f"fetching the jars of Kafka {version} by mvn", file=sys.stderr)
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=jars"]
        done = subprocess.run([*command, f"-DexcludeArtifactIds={_EXCLUDED}"], cwd=home, capture_output=True, text=True)
        if done.returncode:
            raise KafkaMissing(f"mvn cannot fetch the jars of Kafka {version}: {done.stdout.strip()[-500:]}")
        (home / "complete").touch()
    return home / "jars"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="local_kafka", description="A real Kafka broker on this machine.")
    parser.add_argument("--version", default=DEFAULT_VERSION, help=f"of Apache Kafka (default {DEFAULT_VERSION})")
    parser.add_argument("--home", type=Path, help="keeps the log there; by default it goes with the broker")
    parser.add_argument("command", nargs="*", help="to run with KAFKA_BROKERS set; none: until Ctrl-C")
    options = parser.parse_args(arguments)
    # SIGTERM ends as Ctrl-C does: in order.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with tempfile.TemporaryDirectory(prefix="local-kafka-", ignore_cleanup_errors=True) as temporary:
        try:
            with LocalKafka(options.home or Path(temporary), options.version) as kafka:
                if options.command:
                    environment = os.environ | {
                        "KAFKA_BROKERS": kafka.brokers,
                        "KAFKA_SASL_BROKERS": kafka.sasl_brokers,
                        "KAFKA_VERSION": kafka.version,
                    }
                    return subprocess.run(options.command, env=environment).returncode
                print(f"Kafka {kafka.version} at {kafka.brokers}; with a password (PLAIN) at {kafka.sasl_brokers}")
                print(f"ENGINE_KAFKA__BROKERS={kafka.brokers}", flush=True)
                signal.pause()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
        except KafkaMissing as error:
            print(f"local Kafka: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
