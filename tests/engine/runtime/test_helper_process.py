"""Calls in a process of their own."""

import os
import threading
import time

import pytest

from engine.errors import EngineError, InvalidRequest
from engine.runtime.helper_process import HelperProcess


def double(number: int) -> tuple[int, int]:
    print("this is for the log")
    return 2 * number, os.getpid()


def refuse() -> None:
    raise InvalidRequest("field", "no good")


def fall() -> None:
    raise RuntimeError("a bug")


def last() -> None:
    time.sleep(600)


def test_the_result_comes_back_from_another_process() -> None:
    doubled, process_id = HelperProcess().call(double, 21)
    assert doubled == 42
    assert process_id != os.getpid()


def test_an_error_of_the_engine_s_comes_back_as_it_was() -> None:
    with pytest.raises(InvalidRequest, match="field: no good") as caught:
        HelperProcess().call(refuse)
    assert (caught.value.field, caught.value.reason) == ("field", "no good")


def test_another_error_is_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match="fall ended with exit status 1"):
        HelperProcess().call(fall)
    assert "RuntimeError: a bug" in capfd.readouterr().err


def test_closing_ends_what_runs_and_starts_nothing_more() -> None:
    elsewhere = HelperProcess()
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            elsewhere.call(last)
        except EngineError as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not elsewhere._running:
        time.sleep(0.01)
    elsewhere.close()
    waiting.join(60)
    assert len(ended) == 1
    with pytest.raises(EngineError, match="is ending"):
        elsewhere.call(double, 1)
