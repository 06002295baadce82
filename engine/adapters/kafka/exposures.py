"""Exposures into Kafka, from a thread of their own: what Kafka does, or does not, no request ever waits for."""

import logging
import threading
from collections import deque
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from engine.adapters.kafka.bus import producer_settings
from engine.adapters.kafka.client import ClientErrors, open_client
from engine.config.stream import ExposuresConfig, KafkaConfig
from engine.contract.exposures import Exposure, Failure, encode_exposure
from engine.experiments.exposure import ExposureCounts
from engine.logs import OncePerInterval, Outage
from engine.stream.topics import EXPOSURES

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=30.0))

# How often the thread looks for new exposures. Each look wakes a thread that wants the interpreter, at 10 ms for more
# than the exposures of 200 requests a second cost; librdkafka gathers them for as long anyway.
_LOOK_S: Final = 0.05
_DROPPED: Final = "some are dropped, since Kafka takes them too slowly or not at all"
# At the end of the process, for what is still on its way.
_CLOSE_S: Final = 2.0


class KafkaExposureLog:
    """Implements engine.experiments.exposure.ExposureLog; its producer is its own, so that events lose no place.

    Offers come from one thread; close it at the end. At most `max_queued` exposures wait, encoded or not; what comes
    while so many do is dropped, and so is what Kafka has not taken within the timeout. Both are counted.

    Args:
        brokers: "host:port,…"; they need not be there.

    Raises:
        ConfigError: a property that librdkafka does not know, or that is the engine's to set.
    """

    def __init__(self, brokers: str, kafka: KafkaConfig, config: ExposuresConfig) -> None:
        self._settings = {
            **producer_settings(brokers, kafka),
            "message.timeout.ms": round(config.delivery_timeout_s * 1000),
            "queue.buffering.max.messages": config.max_queued,
            # Nobody waits: bigger batches cost Kafka and this process less.
            "linger.ms": 50,
        }
        self._topic = kafka.named(EXPOSURES.name)
        self._limit = config.max_queued
        self._errors = ClientErrors(brokers)
        self._outage = Outage(log)
        self._producer = open_client(Producer, self._settings, self._errors)
        self._waiting: deque[Exposure | Failure] = deque()
        # Each is written by one thread alone: offers by the caller, what became of them by the sender.
        self._offered = self._refused = 0
        self._logged = self._failed = 0
        self._closing = threading.Event()
        self._sender = threading.Thread(target=self._send, name="engine-exposures", daemon=True)
        self._sender.start()

    def offer(self, exposure: Exposure | Failure) -> None:
        """Take an exposure or a failure, or drop and count it."""
        if self._offered - self._logged - self._failed >= self._limit:
            self._refused += 1
            return
        self._offered += 1
        self._waiting.append(exposure)

    @property
    def counts(self) -> ExposureCounts:
        """What became of the exposures so far."""
        return ExposureCounts(self._logged, self._refused, self._failed)

    def close(self) -> None:
        """Send what is left, for two seconds at most, and give up the rest. Blocks; call it once."""
        self._closing.set()
        self._sender.join()

    def _send(self) -> None:
        logged = dropped = 0
        while not self._closing.is_set():
            try:
                self._producer.poll(_LOOK_S)
                self._hand_over()
            except KafkaException as error:
                # What librdkafka calls fatal: a producer refuses everything after it.
                reason = self._errors.explained(error.args[0])
                log.error("Kafka: %s; starting a new producer of exposures", reason)
                self._give_up()
                self._producer = open_client(Producer, self._settings, self._errors)
            except Exception:  # or it would end this thread silently
                log.exception("exposures could not be sent")
            before, dropped = dropped, self._refused + self._failed
            if dropped > before:
                self._outage.failed("exposures", self._errors.why(_DROPPED), dropped - before)
            elif self._logged > logged:
                self._errors.works()
                self._outage.over("exposures")
            logged = self._logged
        with suppress(KafkaException):
            self._hand_over()
        self._producer.flush(_CLOSE_S)
        self._give_up()

    def _hand_over(self) -> None:
        while self._waiting:
            exposure = self._waiting.popleft()
            try:
                payload = encode_exposure(exposure)
                self._producer.produce(self._topic, payload, exposure.query.unit_id.encode(), on_delivery=self._settle)
            except BufferError:
                self._failed += 1
            except Exception:
                self._failed += 1
                raise

    def _settle(self, error: KafkaError | None, _: Any) -> None:
        if error is None:
            self._logged += 1
        else:
            self._failed += 1

    def _give_up(self) -> None:
        """What the producer still holds is answered for with an error."""
        self._producer.purge()
        self._producer.flush(0.1)
