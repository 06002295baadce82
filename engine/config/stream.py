"""Settings of the event log, of what is written there, and of what the stream processor makes of it."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from engine.config.load import YEARS_S, Section


class KafkaConfig(Section):
    brokers: str = Field("", description="host:port,…; empty: an embedded development broker that keeps nothing")
    directory: Path = Field(Path("var/kafka"), description="where processes find the embedded broker")
    topic_prefix: str = Field(
        "",
        max_length=100,
        pattern=r"^[A-Za-z0-9._-]*$",
        description="put before the names of topics and consumer groups, so that installations can share a cluster",
    )
    client_id: str = Field("personalization-engine", min_length=1)
    delivery_timeout_ms: int = Field(2_000, ge=10, le=300_000, description="past it RecordEvents says UNAVAILABLE")
    linger_ms: float = Field(1.0, ge=0, le=1000, description="how long a message waits for company")
    max_queued_events: int = Field(20_000, ge=500, le=1_000_000, description="past it: RESOURCE_EXHAUSTED at once")
    properties: dict[str, str] = Field({}, description="more of librdkafka's, such as security.protocol")

    def named(self, name: str) -> str:
        """The name that a topic or a consumer group has in this installation's cluster."""
        return self.topic_prefix + name


class EventsConfig(Section):
    max_age_s: int = Field(7 * 86_400, ge=1, le=YEARS_S, description="older events are refused")
    max_ahead_s: int = Field(300, ge=0, le=YEARS_S, description="events further in the future are refused")
    max_concurrent_batches: int = Field(
        64, ge=1, le=10_000, description="places of their own, so that a slow log takes none from recommendations"
    )


class ExposuresConfig(Section):
    enabled: bool = Field(True, description="log what was served, for experiments and for training")
    max_queued: int = Field(
        10_000, ge=1, le=1_000_000, description="exposures that wait for Kafka, some 3 KB each; past it: dropped"
    )
    delivery_timeout_s: float = Field(60.0, gt=0, le=3600, description="how long one waits before it is dropped")


class ProcessorConfig(Section):
    group: str = Field("engine-processor", min_length=1, description="consumer group; the archive's is <group>-archive")
    log: str = Field("", max_length=64, description="name of the topic's incarnation; another one makes offsets void")
    accept_new_log: Literal["topic", "cluster", "never"] = Field(
        "topic",
        description="which log with another identity is read from its beginning instead of stopping with an error: "
        "a topic made again in the same cluster, or another cluster's, too",
    )
    batch_events: int = Field(2_000, ge=1, le=100_000, description="most events applied in one step")
    lanes: int = Field(2, ge=1, le=64, description="sink shards: groups of partitions written at the same time")
    fetch_mb: int = Field(16, ge=1, le=1024, description="most that is fetched ahead")
    session_events: int = Field(50, ge=1, le=1_000, description="most recent events kept for a user")
    event_ids: int = Field(
        1_000, ge=1, le=65_535, description="latest events of a user among which one that comes again counts once"
    )
    event_ids_s: int = Field(
        86_400, ge=1, le=90 * 86_400, description="how long after it one that comes again counts once"
    )
    counted_items: int = Field(
        500, ge=1, le=32_767, description="items of a week that one user can count for in what is popular"
    )
    impression_items: int = Field(
        500, ge=0, le=10_000, description="items last shown that are remembered for a user; 0: none"
    )
    impression_half_life_s: float = Field(
        86_400.0, ge=60, le=365 * 86_400, description="after so long a showing weighs half, for the seen policy"
    )
    state_ttl_s: int = Field(
        90 * 86_400, ge=60, le=YEARS_S, description="how long the live state of a silent user is kept"
    )
    popular_items: int = Field(5_000, ge=10, le=1_000_000, description="kept for a list of one partition, at least")
    fresh_users_per_s: float = Field(
        200.0, ge=0, le=100_000, description="users embedded again (without a user tower: new ones); 0: off"
    )
    fresh_batch: int = Field(64, ge=1, le=4096, description="users embedded in one step")
    fresh_pending: int = Field(20_000, ge=1, le=1_000_000, description="past it those who have waited longest go")
    fresh_ttl_s: int = Field(
        7200, ge=1, le=YEARS_S, description="how long a nearline record takes precedence over the published one"
    )
    retry_max_s: float = Field(
        5.0, ge=0.001, le=3600, description="longest pause between attempts while Redis or Kafka is away"
    )
    archive_directory: Path | None = Field(None, description="where the events' Parquet files go; none: no archive")
    exposures_directory: Path | None = Field(
        None, description="where those of exposures go; none: `exposures` beside archive_directory"
    )
    archive_rows: int = Field(100_000, ge=1, le=10_000_000, description="a file is closed at this many events")
    archive_flush_s: float = Field(60.0, ge=0.001, le=86_400, description="a file is closed at this age")
    metrics_port: int | None = Field(None, ge=0, le=65535, description="Prometheus metrics over HTTP; none: not served")


class TrendingConfig(Section):
    poll_s: float = Field(
        1.0, ge=0, le=3600, description="how often live counts reach ranker and popularity lists; 0: never"
    )
    prior_events: float = Field(
        50.0,
        ge=0.001,
        le=1_000_000_000,
        description="live events at which an unknown item ranks with the bundle's first one",
    )
