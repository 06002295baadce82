import numpy as np
import polars as pl

from engine.config.seen import SeenConfig
from engine.data.build import build_dataset
from engine.data.tables import make_tables
from engine.evaluation.leave_one_out import LeaveOneOut, leave_one_out
from engine.features.seen_history import windows_by_type


def dataset_of(events: list[tuple[str, str, int, str]]):  # type: ignore[no-untyped-def]
    columns = ["user_id", "item_id", "timestamp_ms", "event_type"]
    interactions = pl.DataFrame(events, columns, orient="row").with_columns(
        pl.col("timestamp_ms").cast(pl.Int64) + 1_000_000_000_000
    )
    items = pl.DataFrame({"item_id": list("abcdefgh"), "title": list("abcdefgh")})
    return build_dataset(make_tables(interactions, items))


def test_the_last_event_is_the_test_and_the_rest_is_training() -> None:
    events = [("u", item, second, "click") for second, item in enumerate("abcde")]
    split = leave_one_out(dataset_of(events))
    assert split.targets.tolist() == [4]
    assert split.times_ms.tolist() == [1_000_000_000_004]
    assert sorted(split.train.interactions.rows.tolist()) == [0, 1, 2, 3]


def test_too_short_a_history_is_trained_on_but_not_tested() -> None:
    events = [("u", item, second, "click") for second, item in enumerate("abcd")]
    split = leave_one_out(dataset_of(events))
    assert len(split.users) == 0
    assert len(split.train.interactions) == 4


def test_a_repeated_item_is_no_test_and_impressions_are_no_events() -> None:
    repeated = [("u", item, second, "click") for second, item in enumerate("abcdea")]
    shown = [("v", item, second, "click") for second, item in enumerate("abcde")] + [("v", "h", 99, "impression")]
    split = leave_one_out(dataset_of(repeated + shown))
    assert len(split.users) == 1
    assert split.targets.tolist() == [4]
    assert len(split.train.interactions) == 6 + 4


def test_every_item_is_on_offer_for_every_method() -> None:
    split = leave_one_out(dataset_of([("u", item, second, "click") for second, item in enumerate("abcde")]))
    assert split.train.items["in_stock"].all()
    assert split.train.items["surfaces"].is_null().all()


def test_no_test_event_is_in_training() -> None:
    rng = np.random.default_rng(0)
    events = [
        (f"u{rng.integers(20)}", "abcdefgh"[rng.integers(8)], int(second), "click") for second in rng.permutation(400)
    ]
    split = leave_one_out(dataset_of(events))
    train = split.train.interactions
    pairs = set(zip(train.users.tolist(), train.rows.tolist(), strict=True))
    for user, target, time_ms in zip(split.users, split.targets, split.times_ms, strict=True):
        assert (int(user), int(target)) not in pairs
        assert train.timestamps_ms[train.users == user].max() <= time_ms


def test_what_somebody_did_in_training_is_hidden_from_them_and_from_nobody_else() -> None:
    rng = np.random.default_rng(1)
    events = [(f"u{rng.integers(30)}", "abcdefgh"[rng.integers(8)], second, "click") for second in range(300)]
    split = leave_one_out(dataset_of(events))
    train = split.train.interactions
    done = set(zip(train.users.tolist(), train.rows.tolist(), strict=True))
    places = split.hidden_places.tolist()
    assert len(split.users) > 3
    assert {(int(split.users[place]), row) for place, row in zip(places, split.hidden_rows.tolist(), strict=True)} == {
        (user, row) for user, row in done if user in split.users
    }
    assert set(places) == set(range(len(split.users)))


def test_the_policy_says_what_is_a_test_and_what_is_hidden_from_whom() -> None:
    day_ms = 86_400_000
    looked = [("u", item, place * day_ms, "view") for place, item in enumerate("abcdea")]
    bought = [("v", item, place * day_ms, "purchase") for place, item in enumerate("abcdea")]

    def split(hide: str) -> LeaveOneOut:
        policy = SeenConfig.model_validate({"hide": {"purchase": hide}})
        return leave_one_out(dataset_of(looked + bought), windows_by_type(policy.hide))

    # Both come back to the first item after five days: a view has hidden nothing, and the purchase no longer does.
    short = split("3d")
    assert short.targets.tolist() == [0, 0]
    assert list(zip(short.hidden_places.tolist(), short.hidden_rows.tolist(), strict=True)) == [(1, 3), (1, 4)]
    long = split("1w")
    assert long.users.tolist() == [0]
    assert len(long.hidden_rows) == 0
    # By default nobody gets anything twice.
    assert len(leave_one_out(dataset_of(looked + bought)).users) == 0
