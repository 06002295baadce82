"""The stages of a request: what each does is in a module of its own, and here is which there are.

A stage is a pure function of arrays; those that need a library take a Protocol. None knows of gRPC, of settings
files or of the clock.
"""

from typing import Final, NamedTuple


class Stage(NamedTuple):
    """A timed step of a request.

    name: in timings, metrics and debug answers. part: whose budget it uses (BUDGETS_MS), "" for none. label: what a
    reader is told that it does.
    """

    name: str
    part: str
    label: str


# In the order of a request. One request takes only some of them.
STAGES: Final = (
    Stage("receive", "", "check the request"),
    Stage("features", "features", "read the user's features from Redis"),
    Stage("queue", "", "wait for a thread"),
    Stage("eligibility", "retrieve", "find what may be shown"),
    Stage("baseline", "retrieve", "take what is popular, for the holdout"),
    Stage("cold_start", "retrieve", "take what is popular, for a user who is hardly known"),
    Stage("rerank_by_session", "retrieve", "move that towards the session"),
    Stage("randomize", "retrieve", "let the next best take some places"),
    Stage("blend", "retrieve", "blend the session into the user's vector"),
    Stage("retrieve", "retrieve", "search the index"),
    Stage("rank", "rank", "score the candidates"),
    Stage("filter", "respond", "look at stock once more"),
    Stage("rules", "respond", "apply rules and the seen policy"),
    Stage("explore", "respond", "give new items a place"),
    Stage("diversify", "respond", "choose the slate"),
    Stage("respond", "respond", "collect the answer"),
    Stage("fallback", "", "answer a late request by popularity"),
    Stage("total", "", "the whole request in the engine"),
    Stage("return", "", "hand the answer back to the event loop"),
    Stage("convert", "respond", "make the message"),
)
# Milliseconds that the parts of a request may take.
BUDGETS_MS: Final = {"features": 2.0, "retrieve": 10.0, "rank": 30.0, "respond": 5.0}


def stages_of(part: str) -> tuple[str, ...]:
    """The names of the stages that share a budget, in their order."""
    return tuple(stage.name for stage in STAGES if stage.part == part)
