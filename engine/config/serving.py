"""Serving settings: frozen sections, read once from a TOML file, passed by constructor.

A setting can also come from the environment, which wins over the file: ENGINE_REDIS__URL sets redis.url.
Unknown keys and unknown variables are refused; units are in the names; every queue, batch and timeout is bounded.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from engine.config.check_experiments import check_experiments
from engine.config.experiments import ExperimentConfig, HoldoutConfig
from engine.config.load import YEARS_S, Section, load_settings
from engine.config.seen import SeenConfig, SeenOfSurface, remembered_s
from engine.config.stream import EventsConfig, ExposuresConfig, KafkaConfig, ProcessorConfig, TrendingConfig

_SHARED_MICRO_BATCH = 32
_EventWeight = Annotated[float, Field(ge=0, le=1_000)]


class ServerConfig(Section):
    host: str = "0.0.0.0"
    port: int = Field(50051, ge=0, le=65535, description="0 picks a free port")
    workers: int = Field(1, ge=1, le=256, description="processes that share the port, each with limits of its own")
    max_concurrent_requests: int = Field(64, ge=1, le=10_000, description="past it: RESOURCE_EXHAUSTED at once")
    max_pending_calls: int = Field(
        64, ge=1, le=100_000, description="calls that the event loop has not yet taken; past it gRPC says CANCELLED"
    )
    adaptive_concurrency: bool = Field(
        True, description="refuse earlier, at the number of requests that are answered in time"
    )
    request_timeout_ms: float = Field(
        100.0, gt=0, le=600_000, description="the smaller of this and the client's deadline holds"
    )
    reserve_ms: float = Field(
        15.0,
        ge=0,
        le=600_000,
        description="so long before that, popularity answers what is not ready; at most half of the time",
    )
    compute_threads: int = Field(
        0, ge=0, le=256, description="threads for native calls of a process; 0: one a core, and a batch"
    )
    micro_batch: int | None = Field(
        None,
        ge=0,
        le=256,
        description="most requests that one native call serves; none: 32 on CUDA or in a device process, else 0 (off)",
    )
    drain_s: float = Field(10.0, ge=0, le=3600, description="how long SIGTERM waits for requests in flight")
    max_connection_age_s: float = Field(
        10.0,
        ge=0,
        le=1_000_000,
        description="workers that share a port renew connections, so that load spreads again; 0: never",
    )
    metrics_port: int | None = Field(None, ge=0, le=65535, description="Prometheus metrics over HTTP; none: not served")
    heartbeat_s: float = Field(
        3.0, ge=0, le=3600, description="a worker whose event loop does not answer for so long is replaced; 0: never"
    )
    start_timeout_s: float = Field(
        600.0, ge=1, le=86_400, description="the same for one that starts: kernels are compiled, a bundle is opened"
    )
    restart_pause_s: float = Field(
        0.5, ge=0, le=3600, description="before a worker is started again; doubled with each early end"
    )
    restart_max_pause_s: float = Field(30.0, ge=0, le=3600, description="the longest such pause")


class RedisConfig(Section):
    url: str = Field("", description="empty: a private redis-server is started as a child process")
    directory: Path = Field(Path("var/redis"), description="where the private redis-server keeps its data")
    timeout_ms: float = Field(
        25.0, ge=1, le=3_600_000, description="past it the request goes on without stored features"
    )
    connect_timeout_s: float = Field(2.0, ge=0.1, le=300)
    record_ttl_s: int = Field(7 * 86_400, ge=60, le=YEARS_S, description="how long a published user record lives")
    history_limit: int = Field(
        100, ge=0, le=1_000, description="published events that a nearline record starts from; 0: none"
    )
    seen_limit: int = Field(
        5_000, ge=0, le=100_000, description="most recent items kept for a user, of each type of event; 0: none"
    )
    stale_cache_mb: int = Field(
        64, ge=0, le=65_536, description="memory for last known states, for when Redis fails; 0: none"
    )


class BundleConfig(Section):
    directory: Path = Field(Path("var/bundles"), description="holds the versions and the `current` pointer")
    poll_s: float = Field(2.0, ge=0.001, le=3600, description="how often the pointer is looked at")


class RetrievalConfig(Section):
    candidate_count: int = Field(1000, ge=1, le=10_000)


class BlendConfig(Section):
    session_ttl_s: float = Field(1800.0, gt=0, le=YEARS_S, description="a session ends this long after its last event")
    window_s: float = Field(1800.0, gt=0, le=YEARS_S, description="older session events have no say")
    half_life_s: float = Field(600.0, ge=0.001, le=YEARS_S)
    # Two clicks. On held-out training events of ml-latest-small HR@10 is 0.160, 0.164, 0.160 at 1, 2, 4 (0.135 without
    # a session), on a synthetic world 0.366, 0.341, 0.309 (0.252). The half-life hardly matters between 300 and 1200.
    evidence_half: float = Field(
        2.0, ge=0.001, le=1_000_000, description="evidence at which session and history weigh the same"
    )
    event_weights: dict[Literal["impression", "view", "click", "cart", "purchase", "dwell"], _EventWeight] = Field(
        {"impression": 0.0, "view": 0.5, "click": 1.0, "cart": 2.0, "purchase": 3.0, "dwell": 0.5}
    )


class ColdStartConfig(Section):
    min_interactions: int = Field(
        5, ge=0, le=100, description="users with fewer interactions are served from popularity"
    )
    rotation_share: float = Field(
        0.2, ge=0, le=0.5, description="of the first candidates, that change from user to user"
    )
    rotation_period_s: int = Field(3600, ge=1, le=YEARS_S, description="how often they change")


class ExplorationConfig(Section):
    share: float = Field(0.01, ge=0, le=0.5, description="of all positions, given to new items at random; 0: none")
    max_interactions: int = Field(
        20, ge=1, le=1_000_000_000, description="from so many live interactions on an item is no longer new"
    )


class SurfaceConfig(Section):
    diversity_weight: float = Field(0.1, ge=0, le=1, description="0 keeps relevance order; a request may say otherwise")
    diversity: Literal["mmr", "dpp"] = Field("mmr", description="what an item is compared with: the nearest, or all")
    duplicate_similarity: float = Field(
        0.999, gt=0, le=2, description="items with this cosine or more are the same to a reader; above 1: none are"
    )
    seen: SeenOfSurface = Field(SeenOfSurface(), description="what differs here from [seen]")
    priority: Literal["critical", "default", "sheddable"] = Field(
        "default", description="of requests that do not say theirs: whom an overloaded server answers first"
    )


class CatalogConfig(Section):
    fresh_capacity: int = Field(65_536, ge=8, le=10_000_000, description="new items that fit beside a bundle's own")
    categories: tuple[str, ...] = Field((), description="the only categories that upserts may name; empty: any")
    max_concurrent_batches: int = Field(16, ge=1, le=10_000, description="of catalogue changes; past it: refused")


class RulesConfig(Section):
    file: Path | None = Field(None, description="business rules, a YAML file; none: no rules")
    poll_s: float = Field(1.0, ge=0.001, le=3600, description="how often the file is looked at")


class ReportsConfig(Section):
    archive: Path | None = Field(
        None, description="holds exposures/ and events/; ExperimentService reports from it; none: no such service"
    )
    events: Path | None = Field(None, description="directory of the events, if not in `archive`")
    cache_s: float = Field(60.0, ge=0, le=86_400, description="so long the same question gets the same report")
    max_concurrent: int = Field(1, ge=1, le=64, description="reports that are made at once, each on one thread")
    max_waiting: int = Field(8, ge=1, le=1000, description="calls at once; past it: RESOURCE_EXHAUSTED")
    memory_mb: int = Field(
        1024, ge=256, le=1_048_576, description="of each report that is made; past it, it uses the disk"
    )


class StallsConfig(Section):
    period_ms: float = Field(10.0, ge=1, le=1000, description="how often it is looked whether the event loop is late")
    log_ms: float = Field(
        20.0, ge=5, le=60_000, description="longer pauses are counted by cause, and logged with the stack"
    )
    record: Path | None = Field(None, description="every pause of 5 ms or more goes there, a JSON object a line")


class DeviceConfig(Section):
    retrieval: Literal["cpu", "cuda"] = "cpu"
    ranking: Literal["cpu", "cuda"] = "cpu"
    cuda_device: int = Field(0, ge=0, le=63, description="which CUDA device, counted from 0")
    index: Literal["exact", "ivf", "cagra"] = Field(
        "exact", description="on CUDA: a scan in float16, or for what does not fit the bundle's cells or a graph"
    )
    kernels: Literal["fused", "cuvs", "classic"] = Field(
        "fused", description="that the exact scan uses: the engine's own, cuVS's, or FAISS's"
    )
    search_temporary_mb: int = Field(1024, ge=16, le=65_536, description="of CUDA memory for what a search computes")
    provider: Literal["cuda", "tensorrt"] = Field("cuda", description="of ONNX Runtime, for ranking on CUDA")
    precision: Literal["float16", "float32"] = Field("float16", description="of the ranker's network on CUDA")
    cpu_precision: Literal["float32", "int8"] = Field("float32", description="of its dense layers on the processor")
    ranking_memory_mb: int = Field(2048, ge=64, le=65_536, description="of CUDA memory for ranking, without the tables")
    tensorrt_cache: Path = Field(Path("var/tensorrt"), description="keeps the engines that TensorRT builds at start-up")
    process: bool = Field(
        False, description="search and rank for all workers in one process of its own; for `engine serve`, on Linux"
    )
    process_socket: Path | None = Field(
        None, description="where that process is, if it is there already; none: `engine serve` starts it"
    )

    @model_validator(mode="after")
    def _socket_has_a_process(self) -> Self:
        if self.process_socket is not None and not self.process:
            raise ValueError("process_socket is of a device process: it needs process = true")
        return self

    @property
    def uses_cuda(self) -> bool:
        return "cuda" in (self.retrieval, self.ranking)

    @property
    def device_socket(self) -> Path | None:
        """The socket of the process that searches and ranks for this one; None where this one does so itself."""
        return self.process_socket if self.process else None


def _default_surfaces() -> dict[str, SurfaceConfig]:
    return {name: SurfaceConfig() for name in ("home", "category", "cart", "email")}


class EngineConfig(Section):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    redis: RedisConfig = RedisConfig()
    kafka: KafkaConfig = KafkaConfig()
    events: EventsConfig = EventsConfig()
    exposures: ExposuresConfig = ExposuresConfig()
    processor: ProcessorConfig = ProcessorConfig()
    bundle: BundleConfig = BundleConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    blend: BlendConfig = BlendConfig()
    cold_start: ColdStartConfig = ColdStartConfig()
    exploration: ExplorationConfig = ExplorationConfig()
    trending: TrendingConfig = TrendingConfig()
    seen: SeenConfig = SeenConfig()
    catalog: CatalogConfig = CatalogConfig()
    rules: RulesConfig = RulesConfig()
    reports: ReportsConfig = ReportsConfig()
    device: DeviceConfig = DeviceConfig()
    stalls: StallsConfig = StallsConfig()
    surfaces: dict[str, SurfaceConfig] = Field(default_factory=_default_surfaces, min_length=1)
    holdout: HoldoutConfig = HoldoutConfig()
    experiments: tuple[ExperimentConfig, ...] = ()

    @field_validator("surfaces")
    @classmethod
    def _surfaces_have_names(cls, surfaces: dict[str, SurfaceConfig]) -> dict[str, SurfaceConfig]:
        if "" in surfaces:
            raise ValueError("a surface must have a name")
        return surfaces

    @model_validator(mode="after")
    def _experiments_fit(self) -> Self:
        check_experiments(self.experiments, self.holdout, self.surfaces)
        return self

    def seen_on(self, surface: str) -> SeenConfig:
        """The seen policy of a surface: its own settings, where it has any, over those for all. Raises KeyError."""
        return self.surfaces[surface].seen.over(self.seen)

    @model_validator(mode="after")
    def _seen_policies_fit(self) -> Self:
        for name, surface in self.surfaces.items():
            try:
                surface.seen.over(self.seen)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, ("surfaces", name, "seen", *first["loc"])))
                raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
        return self

    @property
    def remembered_s(self) -> dict[str, int]:
        """By event type, for how long some surface's policy asks for it."""
        return remembered_s(self.seen_on(surface) for surface in self.surfaces)

    @property
    def impression_items(self) -> int:
        """Of how many items a user's impressions are kept; none where no surface's policy looks at them."""
        counted = any(self.seen_on(surface).free_impressions for surface in self.surfaces)
        return self.processor.impression_items if counted else 0

    @property
    def micro_batch(self) -> int:
        """Most requests of one native call; 0: requests share none."""
        if self.server.micro_batch is not None:
            return self.server.micro_batch
        return _SHARED_MICRO_BATCH if self.device.uses_cuda or self.device.process else 0

    def compute_threads(self, cores: int) -> int:
        """Threads of a process with so many cores; where they wait for shared calls, enough for a whole batch."""
        return self.server.compute_threads or max(cores, self.micro_batch, 1)

    @staticmethod
    def load(path: Path | None = None, **flags: dict[str, Any]) -> "EngineConfig":
        """Merge a TOML file (none: the defaults), the environment, and sections given as keywords; the last wins.

        Raises ConfigError with everything that is wrong, and where each of it is from.
        """
        return load_settings(EngineConfig, path, os.environ, flags)
