from pathlib import Path

import numpy as np
import pytest
import redis

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.keys import popularity_key
from engine.adapters.redis.trending import RedisTrending, _Entries
from engine.config.serving import RedisConfig
from engine.errors import DependencyUnavailable
from engine.stream.popularity import ENTRY_DTYPE, OVERALL
from engine.stream.topics import EVENTS
from tests.engine.stream.naive import live_counts
from tests.engine.trends import NOW_MS, write_events

HOME = '{"surface": "home"}'


def test_counts_are_the_processors_however_many_pages_they_take(redis_server: EmbeddedRedis) -> None:
    redis.Redis.from_url(redis_server.url).flushdb()
    rng = np.random.default_rng(0)
    items, ages_ms = rng.zipf(1.3, 6000), rng.integers(0, 10**9, 6000)
    picks = [(f"item-{item}", NOW_MS - int(age_ms)) for item, age_ms in zip(items, ages_ms, strict=True)]
    write_events(redis_server.url, "t", picks)
    trending = RedisTrending(redis_server.url, RedisConfig(), "t", EVENTS.partitions)
    for now_ms in (NOW_MS, NOW_MS + 3_600_000):
        live = trending.read((OVERALL, HOME, '{"surface": "cart"}'), now_ms)
        for scope, counts in live.items():
            expected = live_counts(redis_server.url, "t", scope, now_ms)
            assert counts.keys.tolist() == sorted(expected)
            for found, key in zip(counts.counts, counts.keys.tolist(), strict=True):
                np.testing.assert_allclose(found, expected[key], rtol=1e-9)
        assert len(live[OVERALL].keys) > 1000
        assert len(live['{"surface": "cart"}'].keys) == 0


def test_nothing_is_read_again_while_positions_stand_still(redis_server: EmbeddedRedis) -> None:
    client = redis.Redis.from_url(redis_server.url)
    client.flushdb()
    write_events(redis_server.url, "t", [("a", NOW_MS)])
    trending = RedisTrending(redis_server.url, RedisConfig(), "t", EVENTS.partitions)
    before = trending.read((OVERALL,), NOW_MS)
    for partition in range(EVENTS.partitions):
        client.delete(popularity_key("t", partition, OVERALL))
    assert trending.read((OVERALL,), NOW_MS)[OVERALL].keys.tolist() == before[OVERALL].keys.tolist()
    write_events(redis_server.url, "t", [("b", NOW_MS)])
    assert trending.read((OVERALL,), NOW_MS)[OVERALL].keys.tolist() != before[OVERALL].keys.tolist()


def test_entries_of_another_form_and_a_redis_that_is_away(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    client = redis.Redis.from_url(redis_server.url)
    client.flushdb()
    client.hset(popularity_key("t", 0, OVERALL), b"12345678", b"too short")
    with pytest.raises(DependencyUnavailable, match="another form"):
        RedisTrending(redis_server.url, RedisConfig(), "t", EVENTS.partitions).read((OVERALL,), NOW_MS)
    with pytest.raises(DependencyUnavailable, match="cannot be read"):
        RedisTrending(f"unix://{tmp_path}/none", RedisConfig(), "t", 1).read((OVERALL,), NOW_MS)


def test_of_an_entry_that_a_scan_brings_twice_the_last_holds() -> None:
    first, second, third = (np.full(1, fill, np.uint8).repeat(ENTRY_DTYPE.itemsize).tobytes() for fill in (1, 2, 3))
    entries = _Entries()
    entries.add({b"aaaaaaaa": first, b"bbbbbbbb": second})
    entries.add({b"aaaaaaaa": third})
    keys, found = entries.arrays()
    assert [key.tobytes() for key in keys] == [b"aaaaaaaa", b"bbbbbbbb"]
    assert [entry.tobytes() for entry in found] == [third, second]
    assert len(_Entries().arrays()[0]) == 0
