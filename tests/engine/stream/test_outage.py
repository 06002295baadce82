"""What a processor says while its broker is away: little, and the reason; and when it is over."""

import subprocess
import sys
import time
from pathlib import Path

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.redis.embedded import EmbeddedRedis
from tests.engine.stream.test_processor import wait_for

AWAY_S = 8.0


def test_without_its_broker_it_says_why_a_few_times_and_when_it_is_over(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """In short form: lines come in the first seconds or once a minute."""
    output = tmp_path / "log"

    def lines() -> list[str]:
        return output.read_text().splitlines()

    with EmbeddedKafka(tmp_path / "kafka") as kafka:
        (tmp_path / "engine.toml").write_text(
            f"""
            [kafka]
            brokers = "{kafka.brokers}"
            [redis]
            url = "{redis_server.url}"
            [bundle]
            directory = "{tmp_path / "none"}"
            [processor]
            log = "{tmp_path.name}"
            archive_directory = "{tmp_path / "archive" / "events"}"
            retry_max_s = 0.5
            """
        )
        kafka.set_reachable(False)
        command = [sys.executable, "-m", "engine", "process", "--config", str(tmp_path / "engine.toml")]
        with output.open("wb") as file:
            running = subprocess.Popen(command, stderr=file)
        try:
            # It has not begun, and does not say so.
            wait_for(lambda: any("trying again" in line for line in lines()), 60)
            time.sleep(AWAY_S)
            assert len(lines()) < 10, output.read_text()
            assert not any("processing" in line for line in lines())
            kafka.set_reachable(True)
            wait_for(lambda: sum("processing engine." in line for line in lines()) == 3, 60)
            wait_for(lambda: any("working again" in line for line in lines()), 60)
            before = len(lines())
            # Nor is an outage on the way told by more than a few lines.
            kafka.set_reachable(False)
            wait_for(lambda: sum("trying again" in line for line in lines()) >= 2, 60)
            time.sleep(AWAY_S)
            assert len(lines()) - before < 10, output.read_text()
            kafka.set_reachable(True)
            wait_for(lambda: sum("working again" in line for line in lines()) == 2, 60)
        finally:
            running.kill()
            running.wait()
