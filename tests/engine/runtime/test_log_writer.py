"""Logging while nobody reads the log."""

import subprocess
import sys
import threading

SCRIPT = """
import logging, sys, time
from engine.runtime import log_writer
log_writer.MAX_WAITING = 100
logging.basicConfig(level=logging.INFO, format="%(message)s")
log = logging.getLogger("engine.test")
with log_writer.logs_in_background():
    for number in range(5_000):
        log.info("line %d %s", number, "x" * 200)
    print("through", flush=True)
    sys.stdin.readline()
    log.info("and on")
    try:
        raise RuntimeError("a bug")
    except RuntimeError:
        log.exception("the last words")
"""


def test_a_full_pipe_holds_nobody_up_and_the_end_is_written() -> None:
    """A megabyte goes into a pipe of 64 KiB that nobody reads."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    try:
        assert process.stdout.readline() == "through\n"
        said: list[str] = []
        reading = threading.Thread(target=lambda: said.extend(process.stderr))  # type: ignore[arg-type]
        reading.start()
        # What waits gets through first: 100 lines, once somebody reads.
        while len(said) < 100:
            reading.join(0.01)
        process.stdin.write("\n")
        process.stdin.close()
        reading.join(60)
        assert process.wait(60) == 0
    finally:
        watchdog.cancel()
        process.kill()
    text = "".join(said)
    assert said[0].startswith("line 0 ")
    assert "lines were dropped" in text
    assert "and on" in text
    assert "the last words\nTraceback" in text
    assert text.endswith("RuntimeError: a bug\n")
