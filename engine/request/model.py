"""What serves at one moment."""

from dataclasses import dataclass
from typing import Protocol

from engine.bundle.bundle import Bundle
from engine.catalog.live import LiveCatalogue
from engine.catalog.popularity import LivePopularity
from engine.features.context import ContextEncoder
from engine.stages.rank import Ranker
from engine.stages.retrieve import ItemIndex


@dataclass(frozen=True, slots=True)
class ServingModel:
    """Everything of one bundle that requests use, changed together or not at all.

    catalogue: the bundle's items with what has changed since, and popularity: its lists with what is live counted in,
    change while the bundle serves; nothing else does.
    """

    bundle: Bundle
    catalogue: LiveCatalogue
    popularity: LivePopularity
    index: ItemIndex
    ranker: Ranker
    encoder: ContextEncoder


class Serving(Protocol):
    """Where the models are that serve at this moment, the current one first; for those that keep them up to date."""

    @property
    def models(self) -> tuple[ServingModel, ...]: ...
