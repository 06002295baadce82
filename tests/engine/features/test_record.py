import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RecordError
from engine.features.record import (
    demographics_of,
    pack_record,
    pack_session,
    unpack_keys,
    unpack_record,
    unpack_session,
)
from engine.features.state import Session, UserRecord
from engine.types import Demographics

short_text = st.text(max_size=64)
seeds = st.integers(0, 2**32 - 1)


def make_record(seed: int = 0, demographics: Demographics | None = None) -> UserRecord:
    rng = np.random.default_rng(seed)
    return UserRecord(
        generation=int(rng.integers(-(2**63), 2**63)),
        embedding=rng.normal(size=int(rng.integers(1, 80))).astype(np.float32),
        collaborative=rng.normal(size=int(rng.integers(0, 80))).astype(np.float32),
        profile=(rng.normal(size=int(rng.integers(0, 20))) * 20_000).astype(np.float32),
        interaction_count=int(rng.integers(2**32)),
        purchase_count=int(rng.integers(2**32)),
        demographics=demographics or Demographics("25-34", "Köln", "ads"),
        embedded_until_ms=int(rng.integers(2**60)),
    )


@given(seeds, short_text, short_text, short_text)
def test_a_record_survives_the_round_trip(seed: int, age: str, location: str, source: str) -> None:
    record = make_record(seed, Demographics(age, location, source))
    back = unpack_record(pack_record(record))
    assert demographics_of(pack_record(record)) == back.demographics
    assert (back.generation, back.interaction_count, back.purchase_count, back.embedded_until_ms) == (
        record.generation,
        record.interaction_count,
        record.purchase_count,
        record.embedded_until_ms,
    )
    # A value is cut at 255 bytes of UTF-8, between characters.
    for ours, theirs in ((back.demographics.age_group, age), (back.demographics.location, location)):
        assert theirs.startswith(ours)
        assert ours == theirs or len(theirs.encode()) > 255
    np.testing.assert_allclose(back.embedding, record.embedding, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(back.collaborative, record.collaborative, rtol=1e-3, atol=1e-7)
    np.testing.assert_array_equal(back.profile, record.profile)


@given(seeds, st.data())
def test_every_truncation_is_refused(seed: int, data: st.DataObject) -> None:
    blob = pack_record(make_record(seed))
    with pytest.raises(RecordError):
        unpack_record(blob[: data.draw(st.integers(0, len(blob) - 1))])


@given(st.binary(max_size=400))
def test_garbage_never_raises_anything_else(blob: bytes) -> None:
    for unpack in (unpack_record, unpack_keys, unpack_session):
        try:
            unpack(blob)
        except RecordError:
            continue


def test_a_record_is_stored_as_it_ever_was() -> None:
    embedding, collaborative, profile = (np.array(one, np.float32) for one in ([1, -2], [0.5], [3, 20_454.25, -1]))
    record = UserRecord(5, embedding, collaborative, profile, 7, 3, Demographics("a", "ß"), 9)
    assert pack_record(record) == (
        struct.pack("<BHHHqIIq", 2, 2, 1, 3, 5, 7, 3, 9)
        + b"\x01a\x02\xc3\x9f\x00"
        + struct.pack("<3e3f", 1, -2, 0.5, 3, 20_454.25, -1)
    )


def test_an_unknown_version_is_refused() -> None:
    blob = bytearray(pack_record(make_record()))
    blob[0] = 9
    with pytest.raises(RecordError, match="version 9"):
        unpack_record(bytes(blob))
    with pytest.raises(RecordError, match="another version"):
        demographics_of(bytes(blob))
    with pytest.raises(RecordError, match="truncated"):
        demographics_of(pack_record(make_record())[:20])


def test_values_beyond_float16_are_clipped_not_infinite() -> None:
    record = make_record()
    record.embedding[0] = 1e9
    assert np.isfinite(unpack_record(pack_record(record)).embedding).all()


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 255), st.integers(0, 2**60)), max_size=60))
def test_keys_and_sessions_survive_the_round_trip(events: list[tuple[int, int, int]]) -> None:
    keys = np.array([event[0] for event in events], np.int64)
    session = Session(
        keys, np.array([event[1] for event in events], np.uint8), np.array([event[2] for event in events], np.int64)
    )
    np.testing.assert_array_equal(unpack_keys(keys.tobytes()), keys)
    back = unpack_session(pack_session(session))
    np.testing.assert_array_equal(back.item_keys, keys)
    np.testing.assert_array_equal(back.event_types, session.event_types)
    np.testing.assert_array_equal(back.timestamps_ms, session.timestamps_ms)
