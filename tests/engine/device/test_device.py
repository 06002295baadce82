"""A front end and a device process: what is asked, what fails and how, and who holds which bundle for how long."""

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from engine.catalog.new_items import NewItems
from engine.device.client import DeviceClient
from engine.device.model import DeviceModel, LeasedModels
from engine.device.remote import RemoteIndex, RemoteRanker
from engine.device.server import DeviceServer
from engine.errors import BundleError, DeadlineExceeded, DependencyUnavailable, EngineError, Overloaded
from engine.kernels.membership import rows_of_keys
from engine.request.clock import request_deadline
from engine.retrieval.overfetch import Found, SearchRequest
from engine.types import Float32Array, Int64Array, RankingContext
from tests.engine.device.serving import BUNDLE, OnlyBundle, context_of, device_model, running, served

PATIENCE_S = 30.0
EVERYTHING = np.full(1, 255, np.uint8)
VECTORS = np.eye(8, 4, dtype=np.float32)


class Device:
    """Finds the rows that are its queries' components, notes its batches, and can be held; -1 is what it cannot do."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.busy, self.free = threading.Event(), threading.Event()
        self.free.set()

    def search(self, requests: Sequence[SearchRequest]) -> list[Found | EngineError | None]:
        asked = [float(request.query[0]) for request in requests]
        self.batches.append(asked)
        self.busy.set()
        assert self.free.wait(PATIENCE_S)
        if -2.0 in asked:
            raise RuntimeError("the device fell over")
        if -3.0 in asked:
            raise EngineError("no memory is left there")
        return [
            EngineError("that one is bad") if one == -1.0 else (np.array([int(one)]), np.array([one], np.float32))
            for one in asked
        ]


def query(value: float) -> Float32Array:
    return np.full(4, value, np.float32)


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device()
    yield device
    device.free.set()


@pytest.fixture
def index(device: Device) -> Iterator[RemoteIndex]:
    with served(device_model(search_batch=device.search), slots=6) as client:
        yield RemoteIndex(client, 4, VECTORS)
        device.free.set()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def asked_at(index: RemoteIndex, value: float, deadline: float = float("inf")) -> list[int]:
    token = request_deadline.set(deadline)
    try:
        return index.search(query(value), 1, EVERYTHING)[0].tolist()
    finally:
        request_deadline.reset(token)


def held(index: RemoteIndex, device: Device, pool: ThreadPoolExecutor, values: Sequence[float]) -> list[object]:
    """Ask all these while the device is busy with 0, in one batch, and say how each came out."""
    device.free.clear()
    device.busy.clear()
    first = pool.submit(asked_at, index, 0.0)
    assert device.busy.wait(PATIENCE_S)
    others = [pool.submit(asked_at, index, value) for value in values]
    # They are in their sockets, or on the way there: what is late starts another batch, and the test would say so.
    time.sleep(0.2)
    device.free.set()
    assert first.result(PATIENCE_S) == [0]
    return [other.exception(PATIENCE_S) or other.result() for other in others]


def test_what_comes_while_it_is_busy_shares_a_call_up_to_the_cap(
    index: RemoteIndex, device: Device, pool: ThreadPoolExecutor
) -> None:
    assert held(index, device, pool, [1, 2, 3, 4, 5]) == [[1], [2], [3], [4], [5]]
    assert [len(batch) for batch in device.batches] == [1, 4, 1]


def test_a_bad_request_fails_alone_and_a_bad_batch_fails_as_a_whole(
    index: RemoteIndex, device: Device, pool: ThreadPoolExecutor
) -> None:
    good, bad = held(index, device, pool, [1, -1])
    assert good == [1]
    assert isinstance(bad, EngineError)
    assert str(bad) == "that one is bad"
    for value, said in ((-2.0, "its log says why"), (-3.0, "no memory is left there")):
        ends = held(index, device, pool, [1, value])
        assert [type(end) for end in ends] == [EngineError, EngineError]
        assert all(said in str(end) for end in ends)
        assert asked_at(index, 3) == [3]


def test_nobody_waits_longer_than_its_deadline_and_the_slot_comes_back(
    index: RemoteIndex, device: Device, pool: ThreadPoolExecutor
) -> None:
    device.free.clear()
    first = pool.submit(asked_at, index, 0.0)
    assert device.busy.wait(PATIENCE_S)
    late = [pool.submit(asked_at, index, value, time.monotonic() + 0.05) for value in range(1, 6)]
    for future in late:
        assert isinstance(future.exception(PATIENCE_S), DeadlineExceeded)
    # All six slots are the device's still, whoever has given up on them.
    with pytest.raises(Overloaded, match="6 requests"):
        asked_at(index, 6)
    device.free.set()
    assert first.result(PATIENCE_S) == [0]
    until(lambda: _answers(index, 7))
    # What was late never reached the device.
    assert {value for batch in device.batches for value in batch} <= {0.0, 7.0}
    with pytest.raises(DeadlineExceeded):
        asked_at(index, 1, time.monotonic() - 1)


def _answers(index: RemoteIndex, value: float) -> bool:
    try:
        return asked_at(index, value) == [int(value)]
    except Overloaded:
        return False


def test_few_are_scanned_here_and_so_is_what_the_device_cannot_find() -> None:
    vectors = np.eye(1000, 4, dtype=np.float32)

    def finds_nothing(requests: Sequence[SearchRequest]) -> list[Found | EngineError | None]:
        return [None] * len(requests)

    few = np.zeros(125, np.uint8)
    few[0] = 0b110
    with served(device_model(item_count=1000)) as client:  # whose device may not be asked at all
        assert RemoteIndex(client, 4, vectors).search(vectors[2], 5, few)[0].tolist() == [2, 1]
    with served(device_model(item_count=1000, search_batch=finds_nothing)) as client:
        rows, scores = RemoteIndex(client, 4, vectors).search(vectors[3], 2, np.full(125, 255, np.uint8))
        assert (rows[0], scores[0], len(rows)) == (3, 1.0, 2)


class RowRanker:
    """The score of a row is the row."""

    def score_many(self, requests: Sequence[tuple[RankingContext, Int64Array]]) -> list[Float32Array | EngineError]:
        return [rows.astype(np.float32) for _, rows in requests]


class Fresh:
    """A catalogue of fresh items in the order of these keys."""

    def __init__(self, keys: Sequence[int]) -> None:
        self.new_items = NewItems.none(100).with_keys(np.array(keys, np.int64))

    def rows(self, keys: Int64Array) -> Int64Array:
        return rows_of_keys(self.new_items.sorted_keys, self.new_items.sorted_rows, keys)


def test_a_fresh_item_is_the_same_item_in_a_process_that_heard_of_it_in_another_order() -> None:
    here, there = Fresh([7, 5, 9, 3]), Fresh([3, 9, 7])
    model = device_model(ranker=RowRanker(), items=there, row_count=200, first_new_row=100)
    context = context_of(model.shape)
    with served(model) as client:
        ranker = RemoteRanker(client, here)
        # Rows 100 to 103 are the items 7, 5, 9, 3 here; there 7 is in row 102, 9 in 101, 3 in 100, and 5 unheard of.
        assert ranker.score(context, np.array([4, 100, 103, 102, 90])).tolist() == [4, 102, 100, 101, 90]
        assert ranker.score(context, np.array([30, 101, 20, 100])).tolist() == [30, 0, 20, 102]
        assert ranker.score(context, np.array([1, 2])).tolist() == [1, 2]
        with pytest.raises(EngineError, match="row 104 is no item's"):
            ranker.score(context, np.array([1, 104]))
        with pytest.raises(EngineError, match="201 candidates"):
            ranker.score(context, np.zeros(201, np.int64))
        short = RankingContext(context.query[1:], context.session, context.collaborative, context.dense, context.codes)
        with pytest.raises(EngineError, match=r"query is \(3,\), the graph takes \(4,\)"):
            ranker.score(short, np.array([1]))


def test_a_bundle_is_loaded_once_and_held_for_as_long_as_somebody_needs_it() -> None:
    loaded: list[str] = []

    def load(path: Path) -> DeviceModel[None]:
        loaded.append(path.name)
        if path.name == "bad":
            raise BundleError("bad: it does not verify")
        return device_model()

    models = LeasedModels(load)
    shape = models.prepare(Path("old")).shape
    with running(models) as path:
        here, there = (DeviceClient(path, Path("old"), shape, 4) for _ in range(2))
        assert loaded == ["old"]
        with pytest.raises(BundleError, match="bad: it does not verify"):
            DeviceClient(path, Path("bad"), shape, 4)
        new = DeviceClient(path, Path("new"), shape, 4)
        assert len(models.models) == 2
        del here
        gc.collect()
        time.sleep(0.1)
        assert models.get(Path("old")) is not None
        del there
        until(lambda: models.get(Path("old")) is None)
        # Nobody has the last one either, but somebody may come back for it.
        del new
        gc.collect()
        time.sleep(0.1)
        assert models.get(Path("new")) is not None
        assert loaded == ["old", "bad", "new"]


def test_a_front_end_of_other_settings_is_turned_away() -> None:
    models = LeasedModels(lambda _: device_model(row_count=16))
    with running(models) as path, pytest.raises(BundleError, match="other settings"):
        DeviceClient(path, BUNDLE, device_model(row_count=24).shape, 4)


def test_who_says_nonsense_is_hung_up_on_and_disturbs_nobody(index: RemoteIndex, device: Device) -> None:
    path = index._client._connection._path
    for said in (b"{}", b"\xff", b'{"bundle": "/a/bundle", "shape": {"dim": 1}}'):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.settimeout(PATIENCE_S)
            stranger.connect(str(path))
            stranger.send(said)
            assert stranger.recv(100) == b""
    assert asked_at(index, 5) == [5]


@pytest.mark.parametrize("late", [False, True])
def test_a_slot_that_is_hung_up_on_costs_no_place_for_good(index: RemoteIndex, device: Device, late: bool) -> None:
    with index._client.take() as slot:
        slot._socket.send(b"what is this")
        assert slot._readable.poll(PATIENCE_S * 1000)
        slot.waiting, slot.broken = late, not late
    with pytest.raises(DependencyUnavailable):
        asked_at(index, 5)
    until(lambda: _is_back(index))
    with ExitStack() as all_of_them:
        for _ in range(6):
            all_of_them.enter_context(index._client.take())
        with pytest.raises(Overloaded):
            index._client.take()
    assert asked_at(index, 5) == [5]


def test_while_it_is_away_all_fails_at_once_and_when_it_is_back_all_is_well(tmp_path: Path) -> None:
    models = LeasedModels(lambda _: device_model(search_batch=Device().search))
    path = tmp_path / "socket"
    with DeviceServer(path, models, 4) as server:
        client = DeviceClient(path, BUNDLE, models.prepare(BUNDLE).shape, 4)
        index = RemoteIndex(client, 4, VECTORS)
        assert asked_at(index, 1) == [1]
        assert server.slots == 4
    for _ in range(20):
        with pytest.raises(DependencyUnavailable):
            asked_at(index, 2)
    with pytest.raises(DependencyUnavailable):
        DeviceClient(path, BUNDLE, models.prepare(BUNDLE).shape, 4, timeout_s=0.0)
    with DeviceServer(path, models, 4):
        until(lambda: _is_back(index))
        assert [asked_at(index, value) for value in (1, 2, 3)] == [[1], [2], [3]]


def _is_back(index: RemoteIndex) -> bool:
    try:
        return asked_at(index, 4) == [4]
    except DependencyUnavailable:
        return False


def test_nobody_scores_without_candidates() -> None:
    model = device_model()
    with served(model) as client:
        assert RemoteRanker(client, OnlyBundle(8)).score(context_of(model.shape), np.empty(0, np.int64)).shape == (0,)
