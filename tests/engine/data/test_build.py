"""A dataset says the same as its tables, in positions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.build import build_dataset, load_dataset
from engine.data.dataset import Dataset
from engine.data.rules import TableRules
from engine.data.tables import make_tables, write_tables
from engine.errors import DataError
from engine.training.ranker.item_table import item_popularity
from engine.types import EventType
from tests.engine.data.frames import T0_MS, small_interactions, small_items, small_tables

IDS = st.sampled_from(["a", "b", "ü", "d d", "5"])
MAYBE = st.none() | st.sampled_from(["p", "q", "r"])
EVENT = st.fixed_dictionaries(
    {
        "user_id": IDS,
        "item_id": IDS,
        "event_type": st.sampled_from([kind.name.lower() for kind in EventType]),
        "timestamp_ms": st.integers(T0_MS, T0_MS + 5),
        "value": st.none() | st.floats(0, 100, width=32),
        "surface": MAYBE,
        "device": MAYBE,
        "country": MAYBE,
    }
)
ITEMS = pl.DataFrame({"item_id": ["d d", "a", "5", "ü", "b", "unused"], "title": "t"})
USERS = pl.DataFrame({"user_id": ["idle", "b"], "age_group": ["old", None], "location": [None, "x"]})


def test_an_event_of_the_future_counts_as_of_now_and_moves_no_other() -> None:
    """As case 06-event-from-the-future has it, whatever a table lets in."""
    now_ms = T0_MS + 1000
    events = pl.DataFrame(
        {
            "user_id": ["a", "b", "a", "b"], "item_id": ["a", "b", "5", "a"], "event_type": "click",
            "timestamp_ms": [T0_MS, now_ms, 4_070_908_800_000, T0_MS + 2],
        }
    )  # fmt: skip
    anything = replace(TableRules.default(), max_ahead_ms=100 * 365 * 86_400_000)
    found = build_dataset(make_tables(events, ITEMS, rules=anything), now_ms)
    assert found.interactions.timestamps_ms.tolist() == [T0_MS, T0_MS + 2, now_ms, now_ms]
    known = build_dataset(make_tables(events.filter(pl.col("timestamp_ms") <= now_ms), ITEMS), now_ms)
    counts = [item_popularity(data).table(now_ms + 1)[[0, 1, 2, 4, 5]] for data in (found, known)]
    np.testing.assert_array_equal(*[np.delete(table, 2, axis=0) for table in counts])
    histories = found.histories()
    assert histories.last_times_ms(histories.latest()).max() == now_ms


def money_where_it_belongs(event: dict[str, object]) -> dict[str, object]:
    return event if event["event_type"] in ("purchase", "return") else event | {"value": None}


def decoded(dataset: Dataset) -> list[tuple[object, ...]]:
    """The events with ids and labels again."""
    events = dataset.interactions

    def labels(name: str, codes: np.ndarray) -> list[str | None]:
        return [(None, *dataset.vocabularies[name])[code] for code in codes]

    return list(
        zip(
            dataset.users["user_id"].gather(events.users),
            dataset.items["item_id"].gather(events.rows),
            [EventType(code).name.lower() for code in events.event_types],
            events.timestamps_ms.tolist(),
            [None if np.isnan(value) else value for value in events.values.tolist()],
            labels("surface", events.surfaces),
            labels("device", events.devices),
            labels("country", events.countries),
            strict=True,
        )
    )


@settings(deadline=None, max_examples=50)
@given(st.lists(EVENT.map(money_where_it_belongs), min_size=1, max_size=30))
def test_events_survive_in_stable_time_order(rows: list[dict[str, object]]) -> None:
    schema = {"value": pl.Float64, "surface": pl.String, "device": pl.String, "country": pl.String}
    dataset = build_dataset(make_tables(pl.DataFrame(rows, schema_overrides=schema), ITEMS, USERS))
    names = ("user_id", "item_id", "event_type", "timestamp_ms", "value", "surface", "device", "country")
    in_order = sorted(rows, key=lambda row: row["timestamp_ms"])
    assert decoded(dataset) == [tuple(row[name] for name in names) for row in in_order]


@settings(deadline=None, max_examples=50)
@given(st.lists(EVENT.map(money_where_it_belongs), min_size=1, max_size=30))
def test_users_are_the_union_and_items_keep_their_order(rows: list[dict[str, object]]) -> None:
    dataset = build_dataset(make_tables(pl.DataFrame(rows, infer_schema_length=None), ITEMS, USERS))
    user_ids = dataset.users["user_id"].to_list()
    assert user_ids[:2] == ["idle", "b"]
    assert len(user_ids) == len(set(user_ids))
    assert set(user_ids) == {"idle", "b"} | {row["user_id"] for row in rows}
    assert dataset.items["item_id"].to_list() == ITEMS["item_id"].to_list()
    assert dataset.histories().user_count == dataset.user_count == len(dataset.demographic_codes())
    for name, values in dataset.vocabularies.items():
        assert list(values) == sorted(set(values)), name


def test_arrays_have_the_declared_types() -> None:
    events = build_dataset(small_tables()).interactions
    assert [array.dtype.name for array in (events.users, events.rows, events.event_types, events.timestamps_ms)] == [
        "int32", "int32", "uint8", "int64",
    ]  # fmt: skip
    assert events.values.dtype == np.float32
    assert {array.dtype.name for array in (events.surfaces, events.devices, events.countries)} == {"int16"}


def test_demographics_of_users_in_the_table_and_beyond() -> None:
    dataset = build_dataset(small_tables())
    assert dataset.users["user_id"].to_list() == ["zoe", "bob", "ann", "cem"]
    assert dataset.vocabularies["location"] == ("berlin", "paris")
    assert dataset.demographic_codes().tolist() == [[1, 1, 0], [0, 2, 1], [0, 0, 0], [0, 0, 0]]


def test_redelivered_event_counts_once() -> None:
    first = small_interactions()
    again = pl.concat([first, first])
    assert len(build_dataset(make_tables(first, small_items())).interactions) == 4
    # Three have an id and are dropped the second time; the fourth has none and might be another event.
    assert len(build_dataset(make_tables(again, small_items())).interactions) == 5


def test_too_many_surfaces_are_refused() -> None:
    count = 40_000
    events = pl.DataFrame(
        {"user_id": ["u"] * count, "item_id": ["a"] * count, "event_type": ["view"] * count,
         "timestamp_ms": [T0_MS] * count, "surface": [f"s{number}" for number in range(count)]}
    )  # fmt: skip
    with pytest.raises(DataError, match="'surface': 40000 different values"):
        build_dataset(make_tables(events, ITEMS))


def test_load_is_read_then_build(tmp_path: Path) -> None:
    write_tables(small_tables(), tmp_path)
    assert decoded(load_dataset(tmp_path)) == decoded(build_dataset(small_tables()))
