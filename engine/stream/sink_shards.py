"""Several sinks side by side, each for a share of the partitions: while one waits for its store, another computes."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

from engine.stream.events import EventBatch
from engine.stream.log_identity import LogNow, Place
from engine.stream.protocols import Sink


class SinkShards:
    """Partition p belongs to sink p mod n. Implements engine.stream.processor.Sink; close it at the end.

    What belongs together must lie in one partition, as all of a user's events do: every sink stores its share in a
    step of its own. Where one of them fails, what the others have stored stays, and `positions` says so.
    """

    def __init__(self, sinks: Sequence[Sink[EventBatch]]) -> None:
        """Args: sinks: at least one; no two of them may share a connection, since they write at once."""
        self._sinks = tuple(sinks)
        self._threads = ThreadPoolExecutor(len(self._sinks), "engine-sink-shard")

    def positions(self, partitions: Iterable[int], log: LogNow) -> dict[int, Place | None]:
        shares: list[list[int]] = [[] for _ in self._sinks]
        for partition in partitions:
            shares[partition % len(shares)].append(partition)
        found: dict[int, Place | None] = {}
        for sink, share in zip(self._sinks, shares, strict=True):
            found |= sink.positions(share, log)
        return found

    def write(self, batch: EventBatch) -> dict[int, int]:
        """Every sink its share at the same time; without messages, all of them look after what they hold.

        Raises what the first of them has raised, once none is writing any more.
        """
        count = len(self._sinks)
        numbers = {partition % count for partition in batch.ends} or range(count)
        if len(numbers) == 1:
            # As it is when little happens: neither a part to be made nor a thread to be waited for.
            return self._sinks[next(iter(numbers))].write(batch)
        return self._together([partial(self._sinks[number].write, batch.share(number, count)) for number in numbers])

    def flush(self) -> dict[int, int]:
        return self._together([sink.flush for sink in self._sinks])

    def forget(self) -> None:
        for sink in self._sinks:
            sink.forget()

    def close(self) -> None:
        self._threads.shutdown()

    def _together(self, calls: Sequence[Callable[[], dict[int, int]]]) -> dict[int, int]:
        running = [self._threads.submit(call) for call in calls]
        wait(running)
        done: dict[int, int] = {}
        for ended in running:
            done |= ended.result()
        return done
