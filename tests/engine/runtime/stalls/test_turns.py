import threading

import pytest

from engine.runtime.stalls.turns import free_in_turns, started_pool


def test_all_threads_of_a_pool_run_before_it_is_used() -> None:
    before = threading.active_count()
    with started_pool(3, "test-pool") as pool:
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("test-pool")]
        assert len(names) == 3
        assert pool.submit(lambda: 5).result() == 5
        assert threading.active_count() == before + 3


@pytest.mark.parametrize("items", [list(range(2_500)), {number: number for number in range(2_500)}, [], {}])
def test_everything_is_let_go(items: "list[int] | dict[int, int]") -> None:
    free_in_turns(items)
    assert not items
