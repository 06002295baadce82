"""Every Kafka topic, declared in this one place; `engine topics create` makes them."""

from dataclasses import dataclass

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic.

    Args:
        name: ends in a version, so that an incompatible change of its messages is a new topic.
        partitions: fixed for the topic's life: another number would move users to other partitions, and what is
            known of the offsets that their state holds would be void.
        retention_s: how long Kafka keeps a message at least.
    """

    name: str
    partitions: int
    retention_s: int


# Keyed by the user id's UTF-8, so that all events of one user are in one partition, in order.
EVENTS = Topic("engine.events.v1", partitions=8, retention_s=7 * _DAY_S)
# Messages that could not be processed, as they came, with the reason in their headers.
DEAD_LETTERS = Topic("engine.dead-letters.v1", partitions=1, retention_s=30 * _DAY_S)

# What was served; keyed by the unit that experiments assign by, so that one unit's are in one partition.
EXPOSURES = Topic("engine.exposures.v1", partitions=8, retention_s=7 * _DAY_S)

TOPICS = (EVENTS, DEAD_LETTERS, EXPOSURES)
