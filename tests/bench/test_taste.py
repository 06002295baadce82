"""Slates follow their users' taste on every surface, though half of what the log's policy showed was only popular."""

from pathlib import Path

import numpy as np
import pytest

from engine.app.model import train_bundle
from engine.bundle.bundle import open_bundle
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.data.build import load_dataset
from engine.data.dataset import Dataset
from engine.errors import DataError
from engine.training.config import AlsConfig, RankerConfig, TrainingConfig
from engine_bench.synthetic.tables import synthesize
from engine_bench.synthetic.world import WorldSize
from engine_bench.taste_figures import MOMENTS, RETRIEVED, TasteFigures, _asked, _retrieve, measure_taste, worst
from tests.conftest import Trained

TRAINING = TrainingConfig(
    threads=1,
    embeddings="als",
    als=AlsConfig(dim=32, iterations=8),
    ranker=RankerConfig(
        epochs=2, hidden=(32, 16), cross_rank=8, top_negatives=20, retrieved_negatives=20, candidate_count=500
    ),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    data = tmp_path_factory.mktemp("taste")
    synthesize(data, WorldSize(items=1500, users=500), seed=1)
    return load_dataset(data)


def figures(world: Dataset, directory: Path, correction: float) -> list[TasteFigures]:
    ranker = TRAINING.ranker.model_copy(update={"exposure_correction": correction})
    path = train_bundle(world, TRAINING.model_copy(update={"ranker": ranker}), BundleStore(directory / "bundles"))
    return measure_taste(open_bundle(path), world, EngineConfig.load(), directory, user_count=150)


def test_slates_follow_taste_on_every_surface_and_at_any_time(world: Dataset, tmp_path: Path) -> None:
    found = figures(world, tmp_path, correction=1.0)
    assert {(one.surface, one.moment) for one in found} == {
        (surface, moment) for surface in ("home", "category", "cart", "email") for moment in MOMENTS
    }
    for one in found:
        assert one.chance < 0.25
        assert one.main_share >= 0.75, one
        assert one.most_shared <= 0.15, one


def test_a_ranker_that_predicts_the_log_serves_what_the_log_showed(world: Dataset, tmp_path: Path) -> None:
    lowest, highest = worst(figures(world, tmp_path, correction=0.0))
    assert lowest < 0.75
    assert highest > 0.15


def test_what_has_no_categories_has_no_taste_to_measure(trained: Trained, tmp_path: Path) -> None:
    nameless = trained.dataset.items.with_columns(category=None)
    dataset = Dataset(nameless, trained.dataset.users, trained.dataset.interactions, trained.dataset.vocabularies)
    with pytest.raises(DataError, match="categories"):
        measure_taste(open_bundle(trained.bundles.current()), dataset, EngineConfig.load(), tmp_path)


def test_what_retrieval_alone_would_show_is_on_offer_and_new_to_each_person(trained: Trained) -> None:
    bundle = open_bundle(trained.bundles.current())
    asked = _asked(trained.dataset, EngineConfig.load(), 20)
    on_offer = np.arange(len(bundle.items)) % 2 == 0
    retrieved = _retrieve(bundle, trained.dataset, asked, on_offer)
    assert any(on_offer[seen].any() for seen in asked.seen)
    for line, seen in zip(retrieved, asked.seen, strict=True):
        rows = line[line >= 0]
        assert len(rows) == min(RETRIEVED, len(set(np.flatnonzero(on_offer)) - set(seen.tolist())))
        assert on_offer[rows].all()
        assert not np.isin(rows, seen).any()
