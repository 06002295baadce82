"""Messages read many at once are what the protobuf library reads of each, whatever their bytes are."""

import time
from collections.abc import Sequence

import numpy as np
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.contract.events import decode, encode
from engine.errors import PoisonMessage
from engine.stream.events import MAX_AHEAD_MS, EventBatch, read_events
from engine.stream.protocols import Message
from engine.types import EventType, item_key
from engine_client.v1 import event_pb2 as pb
from tests.engine.stream.conftest import NOW_MS, make_event

texts = st.sampled_from(["", "a", "~ !", "\x1f", "\x7f", "ü", "a" * 64, "a" * 65, "a" * 128, "a" * 256, "a" * 257])
numbers = st.sampled_from([-(2**31), -1, 0, 1, 6, 7, 200, 201, 2**31 - 1])
moments = st.builds(
    lambda seconds, nanos: {"seconds": seconds, "nanos": nanos},
    st.sampled_from([-1, 0, 1, NOW_MS // 1000, 4_133_980_799, 4_133_980_800, 2**62]),
    st.sampled_from([-1, 0, 999_999, 1_000_000, 999_999_999, 1_000_000_000]),
)
# What may be another than in an ordinary event; a field that is None is left alone.
changes = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("event_id", "user_id", "item_id", "surface", "session_id", "device", "country"), texts),
        **dict.fromkeys(("type", "position"), numbers),
        "request_id": texts,
        "dwell_ms": st.sampled_from([-1, 0, 1, 2**63 - 1]),
        "value": st.sampled_from([0.0, -0.0, 1.5, -1.5, float("nan"), float("inf"), 5e-324, 1.7e308]),
    },
)


# After every moment of these tests.
AHEAD_MS = time.time_ns() // 1_000_000 + 3_600_000


def changed(kind: EventType, change: dict[str, object], time: dict[str, int], received: dict[str, int]) -> bytes:
    """A message of an event, good but for what the changes make of it."""
    logged = pb.LoggedEvent.FromString(encode(make_event(kind=kind, name="one"), NOW_MS))
    for field, value in change.items():
        setattr(logged.event, field, value)
    for moment, parts in ((logged.event.time, time), (logged.received, received)):
        for field, value in parts.items():
            setattr(moment, field, value)
    return logged.SerializeToString()


kinds = st.sampled_from(EventType)
ordinary = st.builds(changed, kinds, st.just({}), st.just({}), st.just({}))
unusual = st.builds(changed, kinds, changes, moments | st.just({}), moments | st.just({}))
damaged = st.builds(
    lambda payload, at, value, cut: payload[: at % len(payload)] + bytes([value]) + payload[at % len(payload) + cut :],
    ordinary,
    st.integers(0, 200),
    st.integers(0, 255),
    st.integers(0, 3),
)
# A second message behind the first is merged into it, field by field.
merged = st.builds(lambda one, other: one + other, ordinary, unusual | st.binary(max_size=6))
payloads = st.lists(ordinary | unusual | damaged | merged | st.binary(max_size=40), max_size=8)


def one_by_one(messages: Sequence[Message]) -> tuple[list[tuple[object, ...]], list[tuple[Message, str]]]:
    """The rows of a batch, and the poison, as decoding each message by itself tells them."""
    rows: list[tuple[object, ...]] = []
    poison = []
    for message in messages:
        try:
            _, fields, received_ms = decode(message.payload)
        except PoisonMessage as error:
            poison.append((message, str(error)))
            continue
        rows.append(
            (
                message.partition,
                message.offset,
                fields.user_id,
                fields.surface,
                xxhash.xxh3_64_digest(fields.event_id.encode()),
                item_key(fields.item_id),
                fields.type - 1,
                # A moment that nobody can have reached yet is of a wrong clock.
                min(fields.time_ms, received_ms) if received_ms <= AHEAD_MS else None,
                received_ms // 1000 if received_ms <= AHEAD_MS else None,
            )
        )
    return rows, poison


def rows_of(batch: EventBatch) -> list[tuple[object, ...]]:
    assert (batch.times_ms <= AHEAD_MS).all()
    of_the_future = (batch.received_s * 1000 > time.time() * 1000).tolist()
    return list(
        zip(
            batch.partitions.tolist(),
            batch.offsets.tolist(),
            batch.user_ids,
            batch.surfaces,
            [digest.tobytes() for digest in batch.id_digests],
            batch.item_keys.tolist(),
            batch.event_types.tolist(),
            [None if late else moment for late, moment in zip(of_the_future, batch.times_ms.tolist(), strict=True)],
            [None if late else moment for late, moment in zip(of_the_future, batch.received_s.tolist(), strict=True)],
            strict=True,
        )
    )


@settings(deadline=None, max_examples=500)
@given(payloads)
@example([encode(make_event(), NOW_MS)[:-1]])
@example([b"\x12\x00"])
@example([encode(make_event("ü", "é", name="ß"), NOW_MS), encode(make_event(), NOW_MS)])
def test_a_batch_is_what_each_message_is_by_itself(payloads: list[bytes]) -> None:
    messages = [Message(place % 3, 10 + place, b"u", payload) for place, payload in enumerate(payloads)]
    batch, poison = read_events(messages)
    rows, expected = one_by_one(messages)
    assert rows_of(batch) == rows
    assert poison == expected
    assert batch.ends == {message.partition: message.offset for message in messages}


def test_a_server_whose_clock_is_years_ahead_does_not_carry_events_along() -> None:
    event = make_event(kind=EventType.CLICK, time_ms=4_070_908_800_000)
    batch, _ = read_events([Message(0, 0, b"u", encode(event, 4_070_908_800_000))])
    now_ms = time.time_ns() // 1_000_000
    assert now_ms <= batch.times_ms[0] <= now_ms + MAX_AHEAD_MS
    assert now_ms // 1000 <= batch.received_s[0] <= (now_ms + MAX_AHEAD_MS) // 1000


def test_a_server_whose_clock_is_minutes_ahead_keeps_its_times() -> None:
    ahead_ms = time.time_ns() // 1_000_000 + MAX_AHEAD_MS - 1_000
    batch, _ = read_events([Message(0, 0, b"u", encode(make_event(time_ms=ahead_ms), ahead_ms))])
    assert (batch.times_ms.tolist(), batch.received_s.tolist()) == ([ahead_ms], [ahead_ms // 1000])


def test_shares_are_the_batch_in_parts() -> None:
    kinds = [EventType.CLICK, EventType.IMPRESSION, EventType.VIEW]
    messages = [
        Message(place % 4, place, b"", encode(make_event(f"u{place}", kind=kinds[place % 3]), NOW_MS))
        for place in range(21)
    ]
    whole, _ = read_events(messages)
    shares = [whole.share(number, 2) for number in range(2)]
    assert [share.ends for share in shares] == [{0: 20, 2: 18}, {1: 17, 3: 19}]
    for number, share in enumerate(shares):
        assert rows_of(share) == [row for row in rows_of(whole) if row[0] % 2 == number]  # type: ignore[operator]
    poison, _ = read_events([message._replace(payload=b"?") for message in messages if message.offset % 3 == 1])
    assert rows_of(poison) == []
    assert poison.share(1, 2).ends == {1: 13, 3: 19}
    assert poison.times_ms.dtype == np.int64
