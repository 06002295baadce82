"""What is asked of a Redis before it is used."""

import pytest
import redis

from engine.adapters.redis.connect import check_url, warn_of_eviction
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.config.serving import RedisConfig
from engine.errors import ConfigError


@pytest.mark.parametrize(
    "url", ["localhost:6379", "redis://host:secret/0", "http://host/0", "redis://host/0?socket_timeout=secret"]
)
def test_a_url_that_is_none_is_refused_in_one_line_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^redis\.url: cannot be read; it is redis://") as refused:
        check_url(url)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["redis://user:p%40ss@host:6379/1", "rediss://host", "unix:///run/redis.sock"])
def test_urls_of_every_kind_are_taken(url: str) -> None:
    check_url(url)


def test_a_redis_that_removes_keys_is_warned_of(redis_server: EmbeddedRedis, caplog: pytest.LogCaptureFixture) -> None:
    client = redis.Redis.from_url(redis_server.url)
    for memory, policy, warns in (
        ("100mb", "noeviction", False),
        ("0", "allkeys-lru", False),
        ("100mb", "allkeys-lru", True),
        ("100mb", "volatile-ttl", True),
    ):
        client.config_set("maxmemory", memory)
        client.config_set("maxmemory-policy", policy)
        try:
            caplog.clear()
            warn_of_eviction(redis_server.url, RedisConfig())
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")
        assert (f"maxmemory-policy {policy}" in caplog.text) is warns
    client.close()


def test_one_out_of_reach_gets_no_line(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_eviction("redis://127.0.0.1:1/0", RedisConfig())
    assert not caplog.records
