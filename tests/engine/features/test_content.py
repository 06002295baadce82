import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from engine.data.schema import ITEMS
from engine.features.content import ContentSchema, bucket_of, content_features, fit_content

SCHEMA = ContentSchema(max_tokens=12)


def items(*lines: dict[str, object]) -> pl.DataFrame:
    """Canonical items from partial lines."""
    columns = {name: [line.get(name) for line in lines] for name in ITEMS.polars}
    return pl.DataFrame(columns, schema=ITEMS.polars)


def tokens(*lines: dict[str, object], schema: ContentSchema = SCHEMA) -> list[list[int]]:
    return [[int(t) for t in row if t] for row in content_features(items(*lines), schema).token_ids]


def buckets(*names: str, schema: ContentSchema = SCHEMA) -> list[int]:
    return [bucket_of(name, schema.buckets) for name in names]


def test_tokens_come_field_by_field() -> None:
    film = {
        "title": "Toy Story", "description": "A toy’s life, 2 of 3", "category": "Animation", "brand": "Pixar",
        "published_ms": 815_000_000_000, "attributes": "Children|decade:1990s||Children",
    }  # fmt: skip
    want = (
        "category:animation", "brand:pixar", "year:1995", "attribute:children", "attribute:decade:1990s",
        "word:toy", "word:story", "word:a", "word:s", "word:life", "word:2", "word:of",
    )  # fmt: skip
    assert tokens(film) == [buckets(*want)], "12 tokens: the word 3 is cut off, repeats count once"


def test_fields_hash_apart_and_case_does_not_matter() -> None:
    [brand, word, shout] = tokens({"title": "-", "brand": "Apple"}, {"title": "apple"}, {"title": "APPLE"})
    assert brand != word
    assert word == shout


def test_bucket_is_the_same_on_every_machine() -> None:
    assert bucket_of("category:animation", 32_768) == 12_512


def test_nulls_become_padding_and_flags() -> None:
    frame = items({"title": "!?"}, {"title": "x", "price": 0.0, "published_ms": 0}, {"title": "x", "price": 0.0})
    features = content_features(frame, SCHEMA)
    assert features.token_ids[0].tolist() == [0] * 12
    assert features.dense.tolist() == [[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 0, 0]]
    assert (features.token_ids.dtype, features.dense.dtype) == (np.int64, np.float32)


def test_dense_features_are_standardised_and_bounded() -> None:
    frame = items(*({"title": "x", "price": price, "published_ms": 86_400_000 * day} for price, day in
                    ((1.0, 0), (2.0, 10), (4.0, 20), (8.0, 30))))  # fmt: skip
    schema = fit_content(frame)
    dense = content_features(frame, schema).dense
    np.testing.assert_allclose(dense[:, [0, 2]].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(dense[:, [0, 2]].std(axis=0), 1, atol=1e-5)
    far = content_features(items({"title": "x", "price": 1e9, "published_ms": -(10**12)}), schema).dense
    assert far[0].tolist() == [3, 1, -3, 1]


def test_one_price_or_none_still_makes_a_schema() -> None:
    assert fit_content(items({"title": "x", "price": 5.0})).log_price_std == 1.0
    assert fit_content(items({"title": "x"})) == ContentSchema()


def test_an_item_does_not_depend_on_its_neighbours() -> None:
    lines = [{"title": f"word{n} common", "attributes": "a|b", "price": float(n)} for n in range(50)]
    together = content_features(items(*lines), SCHEMA)
    alone = content_features(items(lines[17]), SCHEMA)
    np.testing.assert_array_equal(together.take(np.array([17])).token_ids, alone.token_ids)
    np.testing.assert_array_equal(together.take(np.array([17])).dense, alone.dense)
    assert len(content_features(items(), SCHEMA)) == 0


@pytest.mark.parametrize("buckets_count", [2, 100, 32_768])
def test_token_ids_stay_in_range(buckets_count: int) -> None:
    schema = ContentSchema(buckets=buckets_count)
    frame = items(*({"title": f"title {n}"} for n in range(200)))
    ids = content_features(frame, schema).token_ids
    assert ids.min() == 0
    assert 1 <= ids[ids > 0].min() <= ids.max() < buckets_count


def test_a_schema_of_nothing_or_of_too_much_is_refused() -> None:
    for good in ({"buckets": 2}, {"max_tokens": 1}, {"max_tokens": 512}):
        assert ContentSchema.model_validate(good)
    for bad in ({"buckets": 1}, {"max_tokens": 0}, {"max_tokens": 513}, {"log_price_std": 0}):
        with pytest.raises(ValidationError):
            ContentSchema.model_validate(bad)


def test_schema_survives_json() -> None:
    schema = fit_content(items({"title": "x", "price": 5.0}, {"title": "y", "price": 7.5, "published_ms": 1}))
    assert ContentSchema.model_validate_json(schema.model_dump_json()) == schema
