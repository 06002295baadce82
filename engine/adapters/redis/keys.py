"""The names of a user's keys. All of one user's keys share a hash tag, so that a Redis Cluster keeps them together."""


def record_key(user_id: str, generation: int) -> str:
    """The precomputed record in one embedding space: records of two bundles live side by side during a change."""
    return f"u:{_tag(user_id)}:record:{generation:x}"


def past_key(user_id: str) -> str:
    """What the published history did with which items; written by publishing alone."""
    return f"u:{_tag(user_id)}:past"


def seen_key(user_id: str) -> str:
    """What earlier versions had published: item keys alone. Read until `past_key` is there, and removed with it."""
    return f"u:{_tag(user_id)}:seen"


def history_key(user_id: str) -> str:
    """The last events of the published history, in the session's format; written by publishing alone."""
    return f"u:{_tag(user_id)}:history"


def nearline_key(user_id: str, generation: int) -> str:
    """A record with what has happened since publishing; written by the stream processor alone, and short-lived."""
    return f"u:{_tag(user_id)}:fresh:{generation:x}"


def live_key(user_id: str) -> str:
    """The live state with the session in it (engine.stream.state); written by the stream processor alone."""
    return f"u:{_tag(user_id)}:live"


def applied_key(log: str, partition: int) -> str:
    """The offset up to which a partition of a log is in this store."""
    return f"applied:{log}:{partition}"


def applied_log_key(log: str, partition: int) -> str:
    """Which log (cluster and topic id) that offset is of."""
    return f"applied-log:{log}:{partition}"


def popularity_key(log: str, partition: int, scope: str) -> str:
    """Live popularity of one scope in one partition: a hash of item keys (8 bytes) to entries."""
    return f"popular:{log}:{partition}:{scope}"


# The catalogue's keys share one hash tag: a change of the overlay and its message are one transaction.
CATALOG_ITEMS = "{catalog}:items"
CATALOG_STOCK = "{catalog}:stock"
CATALOG_CHANGES = "{catalog}:changes"


def catalog_vectors_key(generation: int) -> str:
    """Vectors that interactions have moved, in one embedding space."""
    return f"{{catalog}}:vectors:{generation:x}"


def _tag(user_id: str) -> str:
    # A brace inside the id would end the tag early, or make it empty and scatter the user's keys over slots.
    return "{" + user_id.replace("%", "%25").replace("{", "%7B").replace("}", "%7D") + "}"
