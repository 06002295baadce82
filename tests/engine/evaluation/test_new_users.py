import math
from pathlib import Path

import numpy as np
import pytest

from engine.data.build import load_dataset
from engine.data.dataset import Dataset
from engine.errors import DataError
from engine.evaluation.new_users import FIRST_ITEMS, METHODS, NewUsersReport, _measure, evaluate_new_users, first_items
from engine_bench.datasets.completejourney import import_completejourney
from tests.conftest import Trained
from tests.engine.training.worlds import taste_world

GLOBAL, SEGMENT = METHODS


def with_ages(dataset: Dataset, ages: list[str | None]) -> Dataset:
    users = dataset.users.with_columns(age_group=np.array(ages, object))
    known = tuple(sorted({age for age in ages if age is not None}))
    return Dataset(dataset.items, users, dataset.interactions, dataset.vocabularies | {"age_group": known})


@pytest.fixture(scope="module")
def report() -> NewUsersReport:
    """A world in which age is taste, of four fifths of the users."""
    world = taste_world(3, user_count=300)
    histories = world.histories()
    tastes = [np.bincount(histories.rows[histories.offsets[u] : histories.offsets[u + 1]] % 4) for u in range(300)]
    ages = [None if user % 5 == 0 else f"age {taste.argmax()}" for user, taste in enumerate(tastes)]
    return evaluate_new_users(with_ages(world, ages), [1, 2])


def test_only_people_with_demographics_are_compared(report: NewUsersReport) -> None:
    assert (report.users, report.all_users, report.by_segment) == (240, 300, 1.0)
    for figures in (*report.methods.values(),):
        assert 0 <= figures.ndcg_at_10.mean <= figures.hr_at_10.mean <= figures.hr_at_50.mean <= 1
        assert figures.first_items_at_10.mean <= figures.first_items_at_50.mean


def test_the_segment_helps_where_it_is_taste(report: NewUsersReport) -> None:
    assert report.gain.hr_at_50.mean > 5 * report.gain.hr_at_50.standard_error > 0
    gain = report.methods[SEGMENT].first_items_at_10.mean - report.methods[GLOBAL].first_items_at_10.mean
    assert report.gain.first_items_at_10.mean == pytest.approx(gain)


def test_the_segment_does_no_harm_where_it_says_nothing() -> None:
    world = taste_world(4, user_count=300)
    ages: list[str | None] = [f"age {age}" for age in np.random.default_rng(1).integers(0, 4, 300)]
    gain = evaluate_new_users(with_ages(world, ages), [1]).gain.hr_at_50
    assert abs(gain.mean) < max(3 * gain.standard_error, 0.02)


def test_nothing_of_a_held_out_person_is_known(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every user is missing from one training set a seed, and every training set misses a fifth."""
    import engine.evaluation.new_users as module

    seen: list[set[int]] = []
    build = module.build_popularity

    def noting(dataset: Dataset):  # type: ignore[no-untyped-def]
        seen.append(set(dataset.interactions.users.tolist()))
        return build(dataset)

    monkeypatch.setattr(module, "build_popularity", noting)
    evaluate_new_users(trained.dataset, [1])
    everyone = set(trained.dataset.interactions.users.tolist())
    missing = [everyone - training for training in seen]
    assert len(missing) == 5
    assert sum(map(len, missing)) == len(everyone)
    assert set().union(*missing) == everyone


def test_first_items_are_different_and_in_time_order(trained: Trained) -> None:
    histories = trained.dataset.histories()
    users = np.flatnonzero(histories.lengths() > 0)
    found = first_items(histories, users)
    for line, user in zip(found[::7], users[::7], strict=True):
        rows = histories.rows[histories.offsets[user] : histories.offsets[user + 1]].tolist()
        expected = list(dict.fromkeys(rows))[:FIRST_ITEMS]
        assert line.tolist() == expected + [-1] * (FIRST_ITEMS - len(expected))


def test_figures_are_what_one_counts_by_hand() -> None:
    """Lists of 50 items, and the first five that somebody turned to, wherever they stand; -1 for none."""
    rng = np.random.default_rng(1)
    ranked = np.stack([rng.permutation(60)[:50] for _ in range(300)])
    firsts = np.stack([rng.permutation(60)[:5] for _ in range(300)])
    firsts[np.arange(5)[None, :] > rng.integers(0, 5, 300)[:, None]] = -1
    firsts[:4, 0] = ranked[range(4), [9, 10, 48, 49]]
    for figures, line, items in zip(_measure(ranked, firsts), ranked.tolist(), firsts.tolist(), strict=True):
        place = line.index(items[0]) if items[0] in line else 50
        turned_to = [item for item in items if item >= 0]
        in_10, in_50 = (sum(item in line[:k] for item in turned_to) / len(turned_to) for k in (10, 50))
        gain = 1 / math.log2(2 + place) if place < 10 else 0
        assert figures.tolist() == pytest.approx([float(place < 10), gain, float(place < 50), in_10, in_50])


def test_data_without_demographics_is_refused() -> None:
    with pytest.raises(DataError, match="demographics"):
        evaluate_new_users(taste_world(1), [1])


@pytest.mark.shared_data
def test_households_are_not_served_worse_by_segment(shared_data: Path, tmp_path: Path) -> None:
    import_completejourney(shared_data / "completejourney", tmp_path)
    report = evaluate_new_users(load_dataset(tmp_path), [1])
    assert (report.users, report.all_users) == (801, 2373)
    assert report.gain.first_items_at_50.mean > -0.002
