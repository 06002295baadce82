"""Rules from short texts, and random catalogues for them to select from."""

import textwrap

import polars as pl
from hypothesis import strategies as st

from engine.data.schema import ITEMS
from engine.rules.load import parse_rules
from engine.rules.schema import Rules

SURFACES = ("home", "category", "cart", "email")


def rules_of(text: str) -> Rules:
    """The rules of a list in YAML, with the version written for it."""
    return parse_rules(document(text).encode(), "rules.yaml", SURFACES)


def document(text: str) -> str:
    return "version: 1\nrules:\n" + textwrap.indent(textwrap.dedent(text).strip("\n"), "  ") + "\n"


def items_of(rows: list[dict[str, object]]) -> pl.DataFrame:
    """A canonical frame; what a row does not say is null."""
    columns = {name: [row.get(name) for row in rows] for name in ITEMS.polars}
    return pl.DataFrame(columns, schema=ITEMS.polars)


_labels = st.sampled_from([None, "a", "b", "c", "A", "ab"])
catalogues = st.lists(
    st.fixed_dictionaries(
        {
            "category": _labels,
            "brand": _labels,
            "seller": _labels,
            "price": st.sampled_from([None, 0.0, 1.0, 2.5, 10.0]),
            "attributes": st.one_of(
                st.none(), st.lists(st.sampled_from(["a", "b", "ab", "a.", "*"]), max_size=3).map("|".join)
            ),
        }
    ),
    min_size=1,
    max_size=40,
).map(lambda rows: [{"item_id": f"i{index}", "title": "t", **row} for index, row in enumerate(rows)])
