"""The fleet: gateways of all dialects on loopback, in one compressed time; `open_fleet` ends them all."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

import httpx

from receiver.sandbox.delivery import Courier, DeliveryCounts
from receiver.sandbox.evolution.host import EvolutionHost
from receiver.sandbox.host import Host
from receiver.sandbox.stage import Stage
from receiver.sandbox.twilio import TwilioHost
from receiver.sandbox.wapi import WapiHost

KEPT_FOR: Final = 4.0
"""Seconds that an idle connection to a receiver is kept: less than the 5 after which servers close it."""

H = TypeVar("H", bound=Host[Any])


class Fleet(Stage):
    """A scripted fleet of gateways; made by `open_fleet`."""

    def __init__(
        self,
        *,
        speed: float,
        seed: int,
        doubled: float,
        reordered: float,
    ) -> None:
        super().__init__(speed, seed)
        self.hosts: list[Host[Any]] = []
        self._ways_out: list[httpx.AsyncClient] = []
        self._tally = DeliveryCounts()
        self._doubled = doubled
        self._reordered = reordered

    async def evolution(
        self,
        version: str = "2.3.6",
        utc_offset: timedelta = timedelta(hours=-3),
        exposes_key: bool | None = None,
    ) -> EvolutionHost:
        """Return an Evolution server.

        `exposes_key`: whether webhooks carry the instance's token; None: as the version does (v1 yes, v2 no).
        """
        return await self._open(EvolutionHost(self._courier(), version, utc_offset, exposes_key))

    async def wapi(self) -> WapiHost:
        """Return a W-API."""
        return await self._open(WapiHost(self._courier()))

    async def twilio(self) -> TwilioHost:
        """Return a Twilio with one account."""
        return await self._open(TwilioHost(self._courier()))

    async def said(self) -> None:
        """Wait until every webhook emitted so far is settled, as each channel's `said` does."""
        for host in self.hosts:
            await host.said()

    async def close(self) -> None:
        """End all tasks, then all servers; raise what a script failed with."""
        try:
            await self.end()
        finally:
            for host in self.hosts:
                await host.close()
            for http in self._ways_out:
                await http.aclose()

    @property
    def attempts(self) -> int:
        """How many requests were made to deliver webhooks."""
        return self._tally.attempts

    @property
    def delivered(self) -> int:
        """How many webhooks were answered with 2xx."""
        return self._tally.delivered

    @property
    def dropped(self) -> int:
        """How many webhooks were given up, at once or after the last attempt."""
        return self._tally.dropped

    @property
    def answers(self) -> Counter[int]:
        """How often receivers answered which status."""
        return self._tally.answers

    def _courier(self) -> Courier:
        # A pool for each gateway: httpx looks through the whole of it with each request.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=KEPT_FOR)
        http = httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)
        self._ways_out.append(http)
        return Courier(self, http, self._tally, self._doubled, self._reordered)

    async def _open(self, host: H) -> H:
        self.hosts.append(host)
        await host.open()
        return host


@asynccontextmanager
async def open_fleet(
    speed: float = 1.0, seed: int = 1, doubled: float = 0.0, reordered: float = 0.0
) -> AsyncIterator[Fleet]:
    """Yield a fleet whose time runs `speed` times as fast.

    `doubled` is the share of events that are sent twice, `reordered` the share that a later one overtakes.
    """
    fleet = Fleet(speed=speed, seed=seed, doubled=doubled, reordered=reordered)
    try:
        yield fleet
    finally:
        await fleet.close()
