from pathlib import Path
from types import SimpleNamespace

from tests.order import LONGEST, longest_first

ROOT = Path(__file__).parents[1]


def test_every_file_that_is_named_is_there() -> None:
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []
    assert len(set(LONGEST)) == len(LONGEST)


def test_the_longest_come_first_and_all_else_stays_as_it_is() -> None:
    named = [f"{LONGEST[1]}::b", f"{LONGEST[1]}::a", f"{LONGEST[0]}::c"]
    items = [SimpleNamespace(nodeid=name) for name in ("tests/z.py::t", named[0], "tests/a.py::t", *named[1:])]
    longest_first(items)  # type: ignore[arg-type]
    assert [item.nodeid for item in items] == [named[2], named[0], named[1], "tests/z.py::t", "tests/a.py::t"]
