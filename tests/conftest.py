from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.app.model import train_bundle
from engine.bundle.store import BundleStore
from engine.data.build import load_dataset
from engine.data.dataset import Dataset
from engine.request.clock import request_deadline
from engine.training.config import AlsConfig, RankerConfig, TrainingConfig, TwoTowerConfig
from engine_bench.synthetic.tables import synthesize
from engine_bench.synthetic.world import WorldSize
from tests.once import once_a_run
from tests.order import longest_first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest_first(items)


# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture(autouse=True)
def no_deadline() -> None:
    """What an asynchronous test has set must not be there for the next one."""
    request_deadline.set(float("inf"))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A real redis-server for the whole run."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets beside the checkout; skips without them."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the real data sets are not beside this checkout")
    return path


@dataclass(frozen=True)
class Trained:
    """A small synthetic world with the bundle that was trained on it."""

    directory: Path
    data: Path
    dataset: Dataset
    bundles: BundleStore


SMALL_TRAINING = TrainingConfig(
    als=AlsConfig(dim=16, iterations=5),
    two_tower=TwoTowerConfig(dim=16, window=20, layers=1, epochs=3, negatives=100),
    ranker=RankerConfig(epochs=2, hidden=(32, 16), cross_rank=8, max_examples=500),
)


FACTORIZED_TRAINING = SMALL_TRAINING.model_copy(update={"embeddings": "als"})


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained once a run, by the same steps as a user would."""

    def make(home: Path) -> None:
        synthesize(home / "data", WorldSize(items=600, users=150), seed=3)
        train_bundle(load_dataset(home / "data"), SMALL_TRAINING, BundleStore(home / "bundles"))

    home = once_a_run(tmp_path_factory, "trained", make)
    return Trained(home, home / "data", load_dataset(home / "data"), BundleStore(home / "bundles"))


@pytest.fixture(scope="session")
def factorized(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    """A bundle without towers of the same world; to be read only, as that one."""

    def make(home: Path) -> None:
        train_bundle(trained.dataset, FACTORIZED_TRAINING, BundleStore(home / "bundles"))

    return BundleStore(once_a_run(tmp_path_factory, "factorized", make) / "bundles")
