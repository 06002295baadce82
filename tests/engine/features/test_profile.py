import numpy as np

from engine.features.history import Histories, HistoryStates
from engine.features.profile import PROFILE, ItemStats, profile_features
from engine.features.schema import FeatureSchema
from engine.types import EventType

DAY_MS = 86_400_000
EPOCH_MS = 1_600_000_000_000


def random_world(seed: int) -> tuple[Histories, ItemStats]:
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(6), rng.integers(0, 40, 6))
    n = len(users)
    histories = Histories.build(
        users,
        rng.integers(0, 30, n),
        rng.choice([EventType.VIEW, EventType.CLICK, EventType.CART, EventType.PURCHASE], n).astype(np.uint8),
        EPOCH_MS - rng.integers(0, 100, n) * DAY_MS,
        user_count=6,
    )
    stats = ItemStats(
        log_price=rng.random(30, dtype=np.float32),
        published_days=rng.normal(-9000, 10, 30).astype(np.float32),
        popularity=rng.random(30, dtype=np.float32),
        epoch_ms=EPOCH_MS,
    )
    return histories, stats


def all_states(histories: Histories) -> HistoryStates:
    pairs = [(u, k) for u, n in enumerate(histories.lengths()) for k in range(n + 1)]
    users, lengths = np.array(pairs).T
    return HistoryStates(users, lengths)


def test_agrees_with_the_definition_at_every_moment() -> None:
    histories, stats = random_world(0)
    states = all_states(histories)
    found = profile_features(histories, states, stats)
    assert found.shape == (len(states), len(PROFILE))
    assert found.dtype == np.float32
    for row, user, length in zip(found, states.users, states.lengths, strict=True):
        if length == 0:
            assert not row.any()
            continue
        events = slice(histories.offsets[user], histories.offsets[user] + length)
        rows, kinds = histories.rows[events], histories.event_types[events]
        named = dict(zip(PROFILE, row, strict=True))
        expected = {
            "log_event_count": np.log1p(length),
            "share_view": np.mean(kinds == EventType.VIEW),
            "share_cart": np.mean(kinds == EventType.CART),
            "share_purchase": np.mean(kinds == EventType.PURCHASE),
            "mean_log_price": stats.log_price[rows].mean(),
            "std_log_price": stats.log_price[rows].std(),
            "mean_popularity": stats.popularity[rows].mean(),
            "recent_popularity": stats.popularity[rows[-10:]].mean(),
            "mean_published_days": stats.published_days[rows].mean(),
            "std_published_days": stats.published_days[rows].std(),
            "recent_published_days": stats.published_days[rows[-10:]].mean(),
            "last_event_days": (histories.timestamps_ms[events][-1] - EPOCH_MS) / DAY_MS,
        }
        assert named.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(named[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_no_histories_at_all() -> None:
    nothing = np.empty(0, np.int64)
    histories = Histories.build(nothing, nothing, nothing.astype(np.uint8), nothing, user_count=2)
    _, stats = random_world(0)
    np.testing.assert_array_equal(profile_features(histories, histories.latest(), stats), np.zeros((2, len(PROFILE))))


def test_statistics_are_read_from_the_columns_of_the_tables() -> None:
    columns = {
        "embedding": (0, 2),
        "collaborative": (2, 4),
        "published_days": (4, 5),
        "log_price": (5, 6),
        "more": (6, 8),
    }
    schema = FeatureSchema(
        embedding_dim=2, collaborative_dim=2, profile=(), vocabularies={}, item_columns=columns, epoch_ms=17
    )
    table, dynamic = np.arange(24, dtype=np.float32).reshape(3, 8), np.arange(15, dtype=np.float32).reshape(3, 5)
    stats = ItemStats.from_tables(schema, table, dynamic)
    assert stats.published_days.tolist() == [4, 12, 20]
    assert stats.log_price.tolist() == [5, 13, 21]
    assert stats.popularity.tolist() == [4, 9, 14]
    assert stats.epoch_ms == 17
