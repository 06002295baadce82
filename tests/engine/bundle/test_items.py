import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bundle.items import ITEM_FILES, Items, read_items, write_items
from engine.errors import BundleError
from engine.kernels.membership import rows_of_keys
from engine.kernels.membership import test_rows as rows_in  # under its own name pytest would collect it
from engine.types import item_keys

SURFACES = ["home", "cart", "email"]


def items_of(directory: Path, surfaces: list[str | None], in_stock: list[bool]) -> Items:
    frame = pl.DataFrame(
        {"item_id": [f"item-{row}" for row in range(len(surfaces))], "surfaces": surfaces, "in_stock": in_stock},
        schema={"item_id": pl.String, "surfaces": pl.String, "in_stock": pl.Boolean},
    )
    write_items(directory, frame)
    return read_items(directory)


surface_lists = st.one_of(
    st.none(), st.lists(st.sampled_from([*SURFACES, "homepage"]), max_size=3, unique=True).map("|".join)
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(surface_lists, st.booleans()), min_size=1, max_size=70))
def test_bitmaps_of_stock_and_surfaces(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    items = items_of(tmp_path_factory.mktemp("items"), [row[0] for row in rows], [row[1] for row in rows])
    everything = np.arange(len(rows))
    assert rows_in(items.stock(), everything).tolist() == [stock for _, stock in rows]
    for surface in SURFACES:
        expected = [not shown or surface in shown.split("|") for shown, _ in rows]
        assert rows_in(items.shown_on(surface), everything).tolist() == expected


def test_ids_and_keys_find_each_other(tmp_path: Path) -> None:
    items = items_of(tmp_path, [None] * 500, [True] * 500)
    rows = np.random.default_rng(0).permutation(500)
    ids = items.ids(rows)
    assert ids == tuple(f"item-{row}" for row in rows)
    np.testing.assert_array_equal(rows_of_keys(items.sorted_keys, items.sorted_rows, item_keys(ids)), rows)


def test_ids_of_any_script_come_back(tmp_path: Path) -> None:
    names = ["", "a", "schön", "日本", "🙂x", "b" * 300]
    write_items(tmp_path, pl.DataFrame({"item_id": names}))
    items = read_items(tmp_path)
    assert len(items) == len(names)
    assert items.ids(np.array([5, 3, 0, 3, 4, 2, 1])) == tuple(names[row] for row in (5, 3, 0, 3, 4, 2, 1))
    assert items.ids(np.empty(0, np.int64)) == ()


def test_ids_do_not_import_pandas(tmp_path: Path) -> None:
    items_of(tmp_path, [None] * 5, [True] * 5)
    script = (
        "import sys; from pathlib import Path; import numpy as np; from engine.bundle.items import read_items;"
        "print(read_items(Path(sys.argv[1])).ids(np.array([3, 1]))); print('pandas' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["('item-3', 'item-1')", "False"]


def test_two_ids_with_one_key_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody knows two strings with one XXH3 hash; a hash of the length replaces it.
    monkeypatch.setattr("engine.bundle.items.item_keys", lambda ids: np.array([len(name) for name in ids]))
    with pytest.raises(BundleError, match="'ab' and 'cd' have the same 64-bit key"):
        write_items(tmp_path, pl.DataFrame({"item_id": ["ab", "c", "cd"]}))


def test_files_that_disagree_are_refused(tmp_path: Path) -> None:
    items_of(tmp_path, [None] * 5, [True] * 5)
    np.save(tmp_path / ITEM_FILES[1], np.arange(4))
    with pytest.raises(BundleError, match="5 items where the key index has 4"):
        read_items(tmp_path)
    (tmp_path / ITEM_FILES[0]).write_bytes(b"garbage")
    with pytest.raises(BundleError, match=r"items\.arrow"):
        read_items(tmp_path)
