"""The overlay: the last change of each kind holds, and readers learn what is new to them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.catalog.changes import Change, Overlay, VectorChange
from engine.types import item_key
from tests.engine.catalog.items import remove, stock, upsert


def test_the_last_change_of_each_kind_holds() -> None:
    overlay = Overlay()
    overlay.add([upsert("a", price=1.0), stock("a", False), upsert("a", price=2.0), upsert("b"), remove("b")])
    a, b = overlay.since(0)
    assert a.stored is not None
    assert (a.stored.item.price, a.in_stock) == (2.0, False)
    assert b.stored is not None
    assert (b.stored.removed, b.in_stock) == (True, None)


def test_a_reader_learns_what_has_changed_since() -> None:
    overlay = Overlay()
    overlay.add([upsert("a"), upsert("b")])
    seen = overlay.sequence
    assert overlay.since(seen) == []
    overlay.add([stock("a", False), upsert("c"), stock("a", True)])
    assert [state.key for state in overlay.since(seen)] == [item_key("c"), item_key("a")]
    assert len(overlay) == 3


def test_what_a_replacement_lacks_is_told_of() -> None:
    overlay = Overlay()
    overlay.add([upsert("a"), stock("b", False)])
    seen = overlay.sequence
    overlay.replace([upsert("c")])
    found = {state.key: (state.stored is not None, state.in_stock) for state in overlay.since(seen)}
    assert found == {item_key("a"): (False, None), item_key("b"): (False, None), item_key("c"): (True, None)}


def test_vectors_are_kept_by_space_and_shared_by_nobody() -> None:
    overlay = Overlay()
    ones = np.ones(3, np.float32)
    overlay.add([VectorChange(1, 7, ones), VectorChange(1, 8, 2 * ones), stock("b", True)])
    one, other = overlay.since(0)
    assert {space: vector.tolist() for space, vector in one.vectors.items()} == {7: [1, 1, 1], 8: [2, 2, 2]}
    assert not other.vectors


ids = st.sampled_from("abcde")
a_change = st.builds(upsert, ids, price=st.floats(0, 9)) | st.builds(remove, ids) | st.builds(stock, ids, st.booleans())
Held = dict[int, tuple[object, bool | None]]


def held(overlay: Overlay) -> Held:
    """What an overlay holds of each item, leaving out those that it once held and of which it knows nothing now."""
    found = {state.key: (state.stored, state.in_stock) for state in overlay.since(0)}
    return {key: state for key, state in found.items() if state != (None, None)}


@given(st.lists(st.tuples(st.booleans(), st.lists(a_change, max_size=4)), max_size=8))
def test_a_reader_from_any_moment_ends_up_with_the_whole(steps: list[tuple[bool, list[Change]]]) -> None:
    overlay = Overlay()
    moments: list[tuple[int, Held]] = [(0, {})]
    for replaces, changes in steps:
        if replaces:
            overlay.replace(changes)
            fresh = Overlay()
            fresh.add(changes)
            assert held(overlay) == held(fresh)
        else:
            overlay.add(changes)
        moments.append((overlay.sequence, held(overlay)))
        sequences = [state.sequence for state in overlay.since(0)]
        # No two items share a place in the order, and the latest change is the last.
        assert sequences == sorted(set(sequences))
        assert sequences[-1:] == [overlay.sequence][: len(sequences)]
    for sequence, known in moments:
        for state in overlay.since(sequence):
            known[state.key] = state.stored, state.in_stock
            assert state.sequence > sequence
        assert {key: state for key, state in known.items() if state != (None, None)} == held(overlay)
    assert overlay.since(overlay.sequence) == []
