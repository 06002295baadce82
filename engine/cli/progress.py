"""Progress bars for long commands."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from engine.logs import Progress


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yields `report(done, total, message)`, drawing on standard error, so that output can be piped.

    One bar for each first part of a message; what follows a comma in it ("…, loss 4.2") may change as it goes.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=Console(stderr=True)) as progress:

        def report(done: int, total: int, message: str) -> None:
            name = message.partition(",")[0]
            if name not in tasks:
                tasks[name] = progress.add_task(message, total=total)
            progress.update(tasks[name], completed=done, total=total, description=message)

        yield report
