import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.cuda import device_table
from engine.adapters.cuda.device_table import DeviceTable
from tests.gpu import on_gpu


def table(rows: int, width: int = 3) -> np.ndarray:
    return np.arange(rows * width, dtype=np.float32).reshape(rows, width)


@pytest.mark.parametrize("device", ["cpu", on_gpu("cuda")])
def test_it_holds_a_copy_until_told_of_rows(device: str) -> None:
    host = table(10)
    copy = DeviceTable(host, device)
    np.testing.assert_array_equal(copy.value.numpy(), table(10))
    host += 1
    np.testing.assert_array_equal(copy.value.numpy(), table(10))
    copy.copy_rows(np.array([9, 9, 0]))
    found = copy.value.numpy()
    np.testing.assert_array_equal(found[[0, 9]], host[[0, 9]])
    copy.copy_rows(np.empty(0, np.int64))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_rows_that_were_told_of_are_copied_and_far_ones_are_not(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 300))
    gap, chunk = data.draw(st.integers(0, 100)), data.draw(st.integers(1, 200))
    written = np.array(data.draw(st.lists(st.integers(0, rows - 1), max_size=40)), np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_table, "_GAP_BYTES", gap)
        patch.setattr(device_table, "_CHUNK_BYTES", chunk)
        host = table(rows)
        copy = DeviceTable(host, "cpu")
        host += 1000
        copy.copy_rows(written)
    found = copy.value.numpy()
    np.testing.assert_array_equal(found[written], host[written])
    for row in np.flatnonzero((found != table(rows)).any(axis=1)).tolist():
        assert written.min() <= row <= written.max()
        # What lies between two written rows is copied with them only where they are near.
        before, after = written[written <= row].max(), written[written >= row].min()
        assert before == after or (after - before) * 12 <= gap


@settings(deadline=None, max_examples=30)
@given(bytes_at_once=st.integers(1, 500), rows=st.integers(1, 100))
def test_a_table_is_copied_whole_in_parts_of_any_size(bytes_at_once: int, rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_table, "_CHUNK_BYTES", bytes_at_once)
        np.testing.assert_array_equal(DeviceTable(table(rows), "cpu").value.numpy(), table(rows))
