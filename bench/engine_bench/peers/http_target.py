"""Load over HTTP: JSON requests encoded before the clock starts, over connections that stay open."""

import datetime
import json
from collections.abc import Sequence

import aiohttp

from engine_bench.load_driver import Answer, Ask, Schedule, Status
from engine_bench.load_target import ITEM_COUNT, SURFACE, TIMEOUT_S, circumstances

PATH = "/inference"
_HEADERS = {"content-type": "application/json"}
_STATUSES = {
    408: Status.DEADLINE, 429: Status.EXHAUSTED, 502: Status.UNAVAILABLE, 503: Status.UNAVAILABLE,
    504: Status.DEADLINE,
}  # fmt: skip


class HttpTarget:
    """Connections to one address; belongs to one event loop. Nothing is retried: every failure is a result.

    asked_for: the moment that requests are to be answered for.
    """

    def __init__(self, address: str, asked_for: datetime.datetime) -> None:
        self._url = f"http://{address}{PATH}"
        self._time_ms = int(asked_for.timestamp() * 1000)
        self._session: aiohttp.ClientSession | None = None

    async def connect(self) -> None:
        """Connections themselves are made when they are needed, and kept."""
        # Without a limit of its own, a client would hold back what is due, and the open loop would be none.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=_HEADERS)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def asked_by(self, schedule: Schedule, user_ids: Sequence[str]) -> Ask:
        """The target of one schedule. An answer with fewer items than asked for is none."""
        assert self._session is not None
        session = self._session
        encoded = [self._request(user_ids[user], place) for place, user in enumerate(schedule.users.tolist())]

        async def ask(place: int) -> Answer:
            try:
                async with session.post(self._url, data=encoded[place]) as response:
                    if response.status != 200:
                        return Answer(_STATUSES.get(response.status, Status.OTHER))
                    items = json.loads(await response.read())["items"]
            except TimeoutError:
                return Answer(Status.DEADLINE)
            except aiohttp.ClientError:
                return Answer(Status.UNAVAILABLE)
            except (ValueError, KeyError):
                return Answer(Status.OTHER)
            return Answer(Status.OK if len(items) == ITEM_COUNT else Status.OTHER)

        return ask

    def _request(self, user_id: str, place: int) -> bytes:
        device, country = circumstances(place)
        return json.dumps(
            {
                "user_id": user_id,
                "surface": SURFACE,
                "item_count": ITEM_COUNT,
                "time_ms": self._time_ms,
                "device": device,
                "country": country,
            }
        ).encode()
