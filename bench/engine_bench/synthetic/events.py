"""What the synthetic world's users do: sessions of slates, clicks, searches, carts and purchases.

All sessions of a chunk advance together, step by step. In a step a logging policy that knows nothing of the user
(popularity, chance, novelty, the shelf they are on) shows a slate, of which at most one item is clicked, top first;
often the user also finds an item alone, which is a view outside any surface. Both pull the intent of the session
towards what was found, so that the last events tell more about the next one than the long-term taste does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.types import BoolArray, EventType, Float32Array, Float64Array, Int64Array
from engine_bench.synthetic.sampler import SOURCE_COUNT, ItemSampler
from engine_bench.synthetic.words import DEVICES, LOCATIONS, SURFACES
from engine_bench.synthetic.world import MS_PER_DAY, World, draw_columns

COUNTRIES: Final = tuple(sorted(set(LOCATIONS.values())))
NO_SURFACE: Final = -1

_CHUNK_SESSIONS: Final = 4096
_MAX_STEPS: Final = 12
_STEP_CONTINUES: Final = 0.78
_INTEREST_SWITCHES: Final = 0.08
_FINDS_ALONE: Final = 0.75
_SEARCH_WIDTH: Final = 24
_DRAWN_PER_SLATE: Final = 12
_SLATE_SIZE: Final = np.array([6, 6, 3, 4])  # by surface: home, category, cart, email
_ENTRY_SHARES: Final = np.array([0.5, 0.3, 0.0, 0.2])
# The logging policy: shares of POPULAR, UNIFORM, NEWEST, CATEGORY, SUB draws by surface.
_POLICY: Final = np.array([
    [0.50, 0.20, 0.15, 0.15, 0.00],
    [0.00, 0.10, 0.05, 0.60, 0.25],
    [0.20, 0.10, 0.00, 0.30, 0.40],
    [0.40, 0.10, 0.50, 0.00, 0.00],
])  # fmt: skip
_SEARCH: Final = np.array([0.15, 0.0, 0.0, 0.25, 0.6])
_HOUR_WEIGHTS: Final = np.array([2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 7, 8, 9, 8, 7, 7, 8, 9, 11, 13, 14, 13, 9, 5], float)
_CART_THRESHOLD: Final = 4.6


@dataclass(frozen=True, slots=True)
class EventColumns:
    """n events as parallel arrays. surfaces: a place in SURFACES or NO_SURFACE. values: money, NaN where none."""

    users: Int64Array
    items: Int64Array
    event_types: Int64Array
    timestamps_ms: Int64Array
    values: Float64Array
    surfaces: Int64Array
    devices: Int64Array
    countries: Int64Array
    sessions: Int64Array

    @staticmethod
    def concat(parts: "list[EventColumns]") -> "EventColumns":
        return EventColumns(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS))

    def take(self, positions: npt.NDArray[np.integer] | BoolArray) -> "EventColumns":
        return EventColumns(*(getattr(self, name)[positions] for name in _COLUMNS))


_COLUMNS: Final = tuple(EventColumns.__dataclass_fields__)


@dataclass(slots=True)
class _Sessions:
    """A chunk of sessions between two steps; arrays over sessions, changed in place."""

    first_number: int
    users: Int64Array
    times_ms: Int64Array
    devices: Int64Array
    countries: Int64Array
    intents: Float32Array
    subs: Int64Array
    surfaces: Int64Array
    steps: Int64Array
    opened: Int64Array
    log: list[EventColumns] = field(default_factory=list)

    def record(
        self, at: Int64Array, items: Int64Array, kind: EventType, times_ms: Int64Array, surfaces: Int64Array,
        values: Float64Array | None = None,
    ) -> None:  # fmt: skip
        """Log one event for each of the sessions `at`."""
        no_values = np.full(len(at), np.nan)
        self.log.append(EventColumns(
            self.users[at], items, np.full(len(at), int(kind)), times_ms, no_values if values is None else values,
            surfaces, self.devices[at], self.countries[at], at + self.first_number,
        ))  # fmt: skip


def simulate_events(
    world: World, event_count: int, on_progress: Callable[[int], None] = lambda done: None
) -> EventColumns:
    """About `event_count` events (whole sessions: at least that many), in time order.

    `on_progress` is called with the number of events so far. Deterministic from the world's seed and event_count.
    Cost: about 10 µs an event on one core, whatever the number of items; memory about 72 bytes an event, twice.
    """
    parts: list[EventColumns] = []
    done = 0
    for chunk in _chunks(world):
        excess = done + len(chunk.users) - event_count
        if excess > 0:  # keep whole sessions, the first ones, until there are enough events
            per_session = np.bincount(chunk.sessions - chunk.sessions.min())
            kept = np.searchsorted(np.cumsum(per_session), len(chunk.users) - excess) + 1
            chunk = chunk.take(chunk.sessions - chunk.sessions.min() < kept)
        parts.append(chunk)
        done += len(chunk.users)
        on_progress(done)
        if done >= event_count:
            break
    events = EventColumns.concat(parts)
    return events.take(np.lexsort((events.sessions, events.timestamps_ms)))


def _chunks(world: World) -> Iterator[EventColumns]:
    """Sessions without end, a chunk at a time."""
    rng = np.random.default_rng([world.seed, 3])
    sampler = ItemSampler(world)
    first_number = 0
    while True:
        sessions = _start(world, first_number, rng)
        for step in range(_MAX_STEPS):
            active = np.flatnonzero(sessions.steps > step)
            if len(active) == 0:
                break
            _step(world, sampler, sessions, active, step, rng)
        first_number += _CHUNK_SESSIONS
        yield EventColumns.concat(sessions.log)


def _start(world: World, first_number: int, rng: np.random.Generator) -> _Sessions:
    truth, size, n = world.users, world.size, _CHUNK_SESSIONS
    cumulative = np.cumsum(truth.activity)
    users = np.minimum(np.searchsorted(cumulative, rng.random(n) * cumulative[-1]), len(cumulative) - 1)
    first_day = (truth.joined_ms[users] - size.start_ms) // MS_PER_DAY
    days = first_day + (rng.random(n) * (size.days - first_day)).astype(np.int64)
    hours = rng.choice(24, n, p=_HOUR_WEIGHTS / _HOUR_WEIGHTS.sum())
    hour_ms = MS_PER_DAY // 24
    # An hour of margin before the end: a session takes at most 48 minutes.
    times = size.start_ms + days * MS_PER_DAY + hours * hour_ms + (rng.random(n) * hour_ms).astype(np.int64)
    times = np.minimum(np.maximum(times, truth.joined_ms[users]), size.end_ms - hour_ms)
    usual_device = rng.random(n) < 0.75
    home = np.array([COUNTRIES.index(country) for country in LOCATIONS.values()])[truth.locations[users]]
    intents, subs = world.intents(users, times, rng)
    return _Sessions(
        first_number=first_number,
        users=users,
        times_ms=times,
        devices=np.where(usual_device, truth.devices[users], rng.integers(0, len(DEVICES), n)).astype(np.int64),
        countries=np.where(rng.random(n) < 0.96, home, rng.integers(0, len(COUNTRIES), n)),
        intents=intents,
        subs=subs,
        surfaces=rng.choice(len(SURFACES), n, p=_ENTRY_SHARES),
        steps=np.minimum(rng.geometric(1 - _STEP_CONTINUES, n), _MAX_STEPS),
        opened=np.full((n, 2 * _MAX_STEPS), -1),
    )


def _step(
    world: World, sampler: ItemSampler, sessions: _Sessions, active: Int64Array, step: int, rng: np.random.Generator
) -> None:
    switching = active[rng.random(len(active)) < _INTEREST_SWITCHES]
    sessions.intents[switching], sessions.subs[switching] = world.intents(
        sessions.users[switching], sessions.times_ms[switching], rng
    )
    carted = np.zeros(len(sessions.users), bool)
    for slot, find in enumerate((_show_slate, _search)):  # one after the other: a click changes what is searched for
        at, items, utility, kind = find(world, sampler, sessions, active, rng)
        surfaces = sessions.surfaces[at] if kind == EventType.CLICK else np.full(len(at), NO_SURFACE)
        # The clicked position is not needed for the order of events: a click precedes a search of the same step.
        times = sessions.times_ms[at] + (10_000 if kind == EventType.CLICK else 30_000)
        times += rng.integers(0, 5000, len(at))
        sessions.record(at, items, kind, times, surfaces)
        in_cart = rng.random(len(at)) < 0.5 / (1 + np.exp(_CART_THRESHOLD - utility))
        sessions.record(at[in_cart], items[in_cart], EventType.CART, times[in_cart] + 6000, surfaces[in_cart])
        reluctance = world.users.price_sensitivity[sessions.users[at]] * world.items.price_z[items]
        bought = in_cart & (rng.random(len(at)) < 0.8 / (1 + np.exp(reluctance)))
        sessions.record(
            at[bought], items[bought], EventType.PURCHASE, times[bought] + 12_000, surfaces[bought],
            world.items.prices[items[bought]],
        )  # fmt: skip
        carted[at] |= in_cart
        sessions.opened[at, 2 * step + slot] = items
        sessions.intents[at] = world.drift(sessions.intents[at], items, rng)
        sessions.subs[at] = world.items.subs[items]
    browsing = np.where(rng.random(len(active)) < 0.5, SURFACES.index("home"), SURFACES.index("category"))
    sessions.surfaces[active] = np.where(carted[active], SURFACES.index("cart"), browsing)
    sessions.times_ms[active] += 60_000 + np.minimum(rng.exponential(60_000, len(active)), 180_000).astype(np.int64)


_Found = tuple[Int64Array, Int64Array, Float32Array, EventType]
"""Sessions (n,), the item that each found (n,), how much it is wanted (n,), and how it was found."""


def _show_slate(
    world: World, sampler: ItemSampler, sessions: _Sessions, active: Int64Array, rng: np.random.Generator
) -> _Found:
    """Log a slate's impressions for each active session; returns the clicks, at most one a slate."""
    users, times = sessions.users[active], sessions.times_ms[active]
    surfaces = sessions.surfaces[active]
    sources = _draw_sources(_POLICY[surfaces], _DRAWN_PER_SLATE, rng)
    items = sampler.draw(sources, sessions.subs[active], times, rng)
    shown = sampler.published(items, times) & sampler.shown_on(items, surfaces) & ~_repeated(items)
    positions = np.cumsum(shown, axis=1) - 1
    shown &= positions < _SLATE_SIZE[surfaces][:, None]
    session = np.nonzero(shown)[0]
    sessions.record(active[session], items[shown], EventType.IMPRESSION, times[session], surfaces[session])

    intents = sessions.intents[active]
    clicked = shown & ~_opened(sessions, active, items)
    clicked &= rng.random(items.shape) < world.click_probability(users, items, intents, times, positions)
    clicking = np.flatnonzero(clicked.any(axis=1))
    chosen = items[clicking, clicked[clicking].argmax(axis=1)]
    utility = world.utility(users[clicking], chosen[:, None], intents[clicking], times[clicking])[:, 0]
    return active[clicking], chosen, utility, EventType.CLICK


def _search(
    world: World, sampler: ItemSampler, sessions: _Sessions, active: Int64Array, rng: np.random.Generator
) -> _Found:
    """Some sessions look for an item themselves and open the one that they want most (Gumbel-max choice)."""
    searching = active[rng.random(len(active)) < _FINDS_ALONE]
    users, times = sessions.users[searching], sessions.times_ms[searching]
    sources = _draw_sources(np.broadcast_to(_SEARCH, (len(searching), SOURCE_COUNT)), _SEARCH_WIDTH, rng)
    items = sampler.draw(sources, sessions.subs[searching], times, rng)
    possible = sampler.published(items, times) & ~_opened(sessions, searching, items)
    utility = world.utility(users, items, sessions.intents[searching], times)
    wanted = np.where(possible, utility + rng.gumbel(0, 1, items.shape), -np.inf)
    rows = np.flatnonzero(possible.any(axis=1))
    best = wanted[rows].argmax(axis=1)
    return searching[rows], items[rows, best], utility[rows, best], EventType.VIEW


def _opened(sessions: _Sessions, at: Int64Array, items: Int64Array) -> BoolArray:
    """bool (n, k): whether the sessions `at` (n,) have opened the items (n, k) before; nobody opens one twice."""
    opened: BoolArray = (items[:, :, None] == sessions.opened[at][:, None, :]).any(axis=2)
    return opened


def _draw_sources(shares: Float64Array, width: int, rng: np.random.Generator) -> Int64Array:
    """int64 (n, width): codes of how each item is drawn, by the shares (n, SOURCE_COUNT)."""
    return draw_columns(np.repeat(shares, width, axis=0), rng).reshape(len(shares), width)


def _repeated(items: Int64Array) -> BoolArray:
    """bool (n, k): true where a row has the item already further left."""
    same = items[:, :, None] == items[:, None, :]
    repeated: BoolArray = np.tril(same, -1).any(axis=2)
    return repeated
