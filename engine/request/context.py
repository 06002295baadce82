"""One request, as its stages see it."""

from dataclasses import dataclass

from engine.catalog.live import LiveCatalogue
from engine.experiments.settings import RequestSettings
from engine.features.state import UserState
from engine.request.clock import RequestClock
from engine.request.explain import Trace
from engine.request.model import ServingModel
from engine.rules.active import ActiveRules
from engine.stages.seen import SeenVerdict
from engine.types import RecommendQuery, UInt8Array


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What the stages of one request share, from the eligibility stage on.

    model: what answers; a swap of bundles does not change it. query: what was asked. state: what is known of the user.
    settings: the server's for this surface, with what variants change. clock: the deadline, timings and fallbacks.
    trace: of a request that asks for debug. eligible: uint8 (ceil(rows / 8),), a bitmap of what may be shown; stages
    narrow it in place. rules: those that apply. seen: what the user has met before.
    """

    model: ServingModel
    query: RecommendQuery
    state: UserState
    settings: RequestSettings
    clock: RequestClock
    trace: Trace | None
    eligible: UInt8Array
    rules: ActiveRules
    seen: SeenVerdict

    @property
    def catalogue(self) -> LiveCatalogue:
        return self.model.catalogue
