"""Small valid tables that tests break in one place."""

import polars as pl

from engine.data.tables import Tables, make_tables

T0_MS = 1_700_000_000_000


def small_interactions() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": ["ann", "bob", "ann", "cem"],
            "item_id": ["b", "a", "c", "a"],
            "event_type": ["view", "click", "purchase", "impression"],
            "timestamp_ms": [T0_MS + 3, T0_MS + 1, T0_MS + 2, T0_MS + 2],
            "value": [None, None, 9.5, None],
            "surface": ["home", None, "cart", "home"],
            "device": ["mobile", "desktop", None, "mobile"],
            "country": ["DE", "FR", "DE", None],
            "session_id": ["s1", None, "s1", None],
            "event_id": ["e1", "e2", "e3", None],
        }
    )


def small_items() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["Über, \"A\"", "B", "C"],
            "description": ["two\nlines", None, None],
            "category": ["x", "x", "y"],
            "brand": ["n", None, "m"],
            "price": [1.5, None, 0.0],
            "published_ms": [T0_MS, None, -1_000_000_000_000],
            "in_stock": [True, False, None],
            "attributes": ["red|big", None, "blue"],
            "surfaces": [None, "home|cart", None],
        }
    )  # fmt: skip


def small_users() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": ["zoe", "bob"],
            "age_group": ["25-34", None],
            "location": ["berlin", "paris"],
            "signup_source": [None, "referral"],
        }
    )


def small_tables() -> Tables:
    return make_tables(small_interactions(), small_items(), small_users())
