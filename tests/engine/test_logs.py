"""What the log says of things that go wrong again and again."""

import asyncio
import logging
import time

import pytest

from engine.errors import described
from engine.logs import OncePerInterval, Outage


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def logger(request: pytest.FixtureRequest) -> logging.Logger:
    return logging.getLogger(f"tests.logs.{request.node.name}")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_flood_becomes_one_line_an_interval(
    caplog: pytest.LogCaptureFixture, clock: Clock, request: pytest.FixtureRequest
) -> None:
    log = logger(request)
    log.addFilter(OncePerInterval(1.0, clock))
    for _ in range(100):
        log.warning("no %s", "redis")
    log.warning("something else")
    clock.now = 1.0
    log.warning("no %s", "redis")
    clock.now = 2.5
    log.warning("no %s", "redis")
    assert said(caplog) == ["no redis", "something else", "no redis (and 99 more like it)", "no redis"]


def test_what_differs_in_its_content_is_said(
    caplog: pytest.LogCaptureFixture, clock: Clock, request: pytest.FixtureRequest
) -> None:
    """One template, several refusals: none of them hides another."""
    log = logger(request)
    log.addFilter(OncePerInterval(30.0, clock))
    for name in ("a", "b", "a", "c", "b"):
        log.error("bundle %s refused", name)
    for error in (ValueError("one"), ValueError("two"), ValueError("one")):
        log.error("it failed", exc_info=error)
    assert said(caplog) == ["bundle a refused", "bundle b refused", "bundle c refused", "it failed", "it failed"]


def test_a_flood_of_different_contents_is_bounded_and_counted(
    caplog: pytest.LogCaptureFixture, clock: Clock, request: pytest.FixtureRequest
) -> None:
    log = logger(request)
    log.addFilter(OncePerInterval(30.0, clock))
    for number in range(1000):
        log.warning("request %d failed", number)
    assert len(caplog.records) == 20
    clock.now = 30.0
    log.warning("request %d failed", 5000)
    assert said(caplog)[-1] == "request 5000 failed (and 980 others of its kind)"
    for number in range(100_000):
        log.warning(f"template {number}")
    assert len(log.filters[0]._templates) <= 200  # type: ignore[union-attr]


def test_what_was_held_back_is_said_although_nothing_more_happens(
    caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    log = logger(request)
    log.addFilter(OncePerInterval(0.1))
    for _ in range(5):
        log.warning("no %s", "redis")
    give_up = time.monotonic() + 20
    while len(caplog.records) < 2 and time.monotonic() < give_up:
        time.sleep(0.01)
    assert said(caplog) == ["no redis", "no redis (and 3 more like it)"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no such item"), "no such item"),
        (TimeoutError(), "TimeoutError"),
        (asyncio.CancelledError(), "CancelledError"),
        (ConnectionError("  "), "ConnectionError"),
    ],
)
def test_an_error_always_says_something(error: BaseException, text: str) -> None:
    assert described(error) == text


def test_an_outage_is_said_once_summed_up_and_over_once(
    caplog: pytest.LogCaptureFixture, clock: Clock, request: pytest.FixtureRequest
) -> None:
    log = logger(request)
    log.setLevel(logging.INFO)
    outage = Outage(log, 60.0, clock)
    outage.over("live")
    for tick in range(1300):
        clock.now = tick / 10
        outage.failed("live", "Kafka: refused")
        outage.failed("archive", "Kafka: refused")
    outage.failed("archive", "Kafka: authentication failed")
    outage.over("live")
    outage.over("live")
    clock.now = 131.0
    outage.over("archive")
    assert said(caplog) == [
        "live: Kafka: refused; trying again until it works",
        "archive, live: still Kafka: refused (1200 failures in the last 60 s)",
        "archive, live: still Kafka: refused (1200 failures in the last 60 s)",
        "archive: Kafka: authentication failed; trying again until it works",
        "archive, live: working again after 131 s and 2601 failures",
    ]
    outage.failed("live", "Kafka: refused")
    assert said(caplog)[-1] == "live: Kafka: refused; trying again until it works"
