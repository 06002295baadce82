import numpy as np
import pytest

from engine.features.context import ContextEncoder
from engine.features.schema import CODE_FEATURES, FeatureSchema
from engine.types import Demographics

# Wednesday 2026-01-07, 13:30:20 UTC
MOMENT_MS = 1_767_792_620_000


@pytest.fixture
def encoder() -> ContextEncoder:
    return ContextEncoder(
        FeatureSchema(
            embedding_dim=4,
            collaborative_dim=4,
            profile=("a", "b"),
            vocabularies={"age_group": ("18-24", "25-34"), "device": ("desktop", "mobile"), "country": ("DE",)},
            item_columns={"embedding": (0, 4)},
            epoch_ms=MOMENT_MS - 86_400_000,
        )
    )


def codes_of(encoder: ContextEncoder, *arguments: str) -> dict[str, int]:
    age, device, country = arguments
    codes = encoder.codes(Demographics(age_group=age), device, country, "home", MOMENT_MS)
    return dict(zip(CODE_FEATURES, codes.tolist(), strict=True))


def test_known_values_have_their_place_and_unknown_ones_none(encoder: ContextEncoder) -> None:
    assert codes_of(encoder, "25-34", "desktop", "DE") == {
        "age_group": 2, "location": 0, "signup_source": 0, "device": 1, "country": 1, "surface": 0, "hour": 14,
        "weekday": 3,
    }  # fmt: skip
    unknown = codes_of(encoder, "older", "fridge", "")
    assert unknown["age_group"] == unknown["device"] == unknown["country"] == 0


def test_time_counts_from_the_epoch_in_whole_minutes(encoder: ContextEncoder) -> None:
    profile = np.array([1.5, -2.0], np.float32)
    session = np.array([0.5, 0.75, 3.0], np.float32)
    dense = encoder.dense(profile, MOMENT_MS, session)
    assert dense.dtype == np.float32
    np.testing.assert_array_equal(dense[:2], profile)
    assert dense[2] == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_array_equal(dense[3:], session)
    np.testing.assert_array_equal(dense, encoder.dense(profile, MOMENT_MS + 30_000, session))
    assert encoder.dense(profile, MOMENT_MS + 60_000, session)[2] > dense[2]
