"""The categories of items, which the diversity of slates is told by."""

from pathlib import Path

import polars as pl

from engine.bundle.items import read_items
from engine.bundle.manifest import MANIFEST
from engine.bundle.store import BundleStore


def bundle_categories(directory: Path) -> dict[str, str]:
    """Of the items that have one, by item id.

    Args:
        directory: of a bundle, or of several with a current one.

    Raises:
        BundleError: there is none, or it cannot be read.
    """
    path = directory if (directory / MANIFEST).is_file() else BundleStore(directory).current()
    items = pl.from_arrow(read_items(path).table)
    assert isinstance(items, pl.DataFrame)
    known = items.select("item_id", "category").drop_nulls()
    return dict(zip(known["item_id"].to_list(), known["category"].to_list(), strict=True))
