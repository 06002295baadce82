"""The names of a user's keys. All of one user's keys share a hash tag, so that a Redis Cluster keeps them together."""


def record_key(user_id: str, generation: int) -> str:
    """The precomputed record in one embedding space: records of two bundles live side by side during a change."""
    return f"u:{_tag(user_id)}:record:{generation:x}"


def session_key(user_id: str) -> str:
    return f"u:{_tag(user_id)}:session"


def seen_key(user_id: str) -> str:
    return f"u:{_tag(user_id)}:seen"


def _tag(user_id: str) -> str:
    # A brace inside the id would end the tag early, or make it empty and scatter the user's keys over slots.
    return "{" + user_id.replace("%", "%25").replace("{", "%7B").replace("}", "%7D") + "}"
