import logging

import pytest

from engine.logs import OncePerInterval


def test_a_flood_becomes_one_line_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    logger = logging.getLogger("tests.flood")
    logger.addFilter(OncePerInterval(1.0, lambda: now[0]))
    for _ in range(100):
        logger.warning("no %s", "redis")
    logger.warning("something else")
    now[0] = 1.0
    logger.warning("no %s", "redis")
    now[0] = 2.5
    logger.warning("no %s", "redis")
    assert [record.getMessage() for record in caplog.records] == [
        "no redis",
        "something else",
        "no redis (and 99 more like it)",
        "no redis",
    ]
