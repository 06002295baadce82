"""From candidates to a slate: the steps that a request takes, each over the stage of that name."""

from typing import Final

import numpy as np

from engine.kernels.membership import clear_rows, test_rows
from engine.request.context import RequestContext
from engine.stages.cold_start import append_backfill, take_first, take_popular
from engine.stages.diversify import Diversifier, DppDiversifier, MmrDiversifier, SlateChoice, diversify
from engine.stages.explore import Exploration, explore, new_among
from engine.stages.rules import Placed, constraints
from engine.stages.seen import let_back_in
from engine.types import Candidates, DegradedReason, Int64Array, ItemSource, event_name, item_keys

_DIVERSIFIERS: Final[dict[str, Diversifier]] = {"mmr": MmrDiversifier(), "dpp": DppDiversifier()}
_MS_PER_MINUTE: Final = 60_000


def pinned_rows(request: RequestContext) -> Int64Array:
    """int64 (pins,): the row of each pin's item, -1 where it may not be shown."""
    if not request.rules.pins:
        return np.empty(0, np.int64)
    rows = request.catalogue.rows(item_keys([pin.item_id for pin in request.rules.pins]))
    return np.where(test_rows(request.eligible, rows), rows, -1)


def fill_up(request: RequestContext, candidates: Candidates) -> tuple[Candidates, dict[int, int]]:
    """As many candidates as the slate needs, whenever that many items are eligible. Clears them in the bitmap.

    First what is popular or new, then what was just looked at, at last what the seen policy hides: of the last two,
    the type of the event that had kept each row away comes back as well.
    """
    model, eligible, item_count = request.model, request.eligible, request.query.item_count
    missing = item_count - len(candidates)
    if missing <= 0:
        return candidates, {}
    clear_rows(eligible, candidates.rows)
    held_back = request.seen.take_recent(eligible)
    popular = take_popular(model.popularity.lists.overall, eligible, missing, ItemSource.BACKFILL)
    # Items that came after the bundle, and of which nothing is heard yet, are in no list.
    newest = take_first(model.catalogue.new_items.newest_first(), eligible, missing - len(popular), ItemSource.BACKFILL)
    candidates = append_backfill(candidates, Candidates.concat([popular, newest]))
    reasons: dict[int, int] = {}
    for kept_away in (held_back, request.seen.hidden):
        missing = item_count - len(candidates)
        if missing > 0 and len(kept_away.rows):
            again, why = let_back_in(kept_away, model.catalogue.of_surface(request.query.surface), missing)
            candidates = append_backfill(candidates, again)
            reasons |= why
    return candidates, reasons


def explore_new(request: RequestContext, placed: Placed) -> Exploration:
    """Give new items the places that chance gives them."""
    share, catalogue, query = request.settings.exploration_share, request.catalogue, request.query
    new = np.empty(0, np.int64)
    if share and catalogue.new_items.count:
        new = new_among(request.eligible, request.model.popularity.new_rows, catalogue.new_items.first_row)
    # Within a minute, a request that is repeated gets the same answer.
    seed = f"{query.unit_id}:{query.surface}:{query.time_ms // _MS_PER_MINUTE}"
    return explore(placed.candidates, new, placed.fixed, share, seed)


def choose(request: RequestContext, candidates: Candidates, fixed: Int64Array) -> SlateChoice:
    """The slate; the first candidates where the time is short or diversity fails.

    fixed: int64 (slate size,), the candidate at each position, -1 for none.
    """
    query, settings = request.query, request.settings
    weight = settings.diversity_weight if query.diversity_weight is None else query.diversity_weight
    return request.clock.attempt(
        "diversify",
        lambda: diversify(
            _DIVERSIFIERS[settings.diversity],
            candidates,
            request.catalogue.item_vectors,
            weight,
            settings.duplicate_similarity,
            query.item_count,
            constraints(candidates, request.rules, fixed),
        ),
        lambda: SlateChoice.head(candidates, query.item_count),
        failed=DegradedReason.DIVERSITY_FAILED,
        skipped=DegradedReason.DIVERSITY_SKIPPED,
    )


def reasons_by_id(slate: Candidates, item_ids: tuple[str, ...], let_back: dict[int, int]) -> dict[str, str]:
    """By id of each item that was let back in, the type of the event that had kept it away."""
    if not let_back:
        return {}
    places = np.flatnonzero(slate.sources == ItemSource.LET_BACK_IN).tolist()
    return {item_ids[place]: event_name(let_back[int(slate.rows[place])]) for place in places}
