"""One history told in every disorder: ten times, in any order, with late copies, by clocks that are set.

Order and repetition have no meaning, by webhooks alone: these channels have no key, so that no probe puts
right what they got wrong. The clocks, where probes do, are in `faults.clocks`.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

from db.registry.tokens import create_gateway_token
from faults.clocks import told_by_clocks
from faults.gateway import Event, Gateway, Instance
from faults.history import CHANNELS, THRESHOLD, History, histories
from faults.line import Line
from faults.postgres import Postgres, postgres
from faults.service import Service, serving
from faults.subject import Subject, settle
from receiver.sandbox.stage import Stage

LIMIT: Final = 600.0
TIMES: Final = 10
FEW: Final = 3
"""Channels of a gateway: more that fall together are its own incident, and theirs wait for its end."""
HOUR: Final = timedelta(hours=1)
LATE: Final = timedelta(minutes=40)
APART: Final = timedelta(seconds=6)
"""Between any two events of a gateway. Two that are late by the same second look like a clock that was set:
retries are spread too widely for that, an hour that is told within seconds is not."""
SETTINGS: Final[dict[str, Any]] = {"retry_after_seconds": "0.5", "terminal_grace_seconds": "0.6"}
"""Short ones, but for silence: what a late word got wrong may not wait until a quiet channel is asked."""

Plan = Callable[[Sequence[Event], Sequence[Event], Random], Sequence[Event]]
"""In which order a channel's events, and their copies by the global webhook, arrive."""


def _once(told: Sequence[Event], copies: Sequence[Event], random: Random) -> Sequence[Event]:
    return told


def _ten_times(told: Sequence[Event], copies: Sequence[Event], random: Random) -> Sequence[Event]:
    return [event for event in told for _ in range(TIMES)]


def _reordered(told: Sequence[Event], copies: Sequence[Event], random: Random) -> Sequence[Event]:
    return random.sample(told, len(told))


def _copied(told: Sequence[Event], copies: Sequence[Event], random: Random) -> Sequence[Event]:
    due = [(event.at, event) for event in told] + [(copy.at + LATE, copy) for copy in copies]
    return [event for _, event in sorted(due, key=lambda pair: pair[0])]


def _all_at_once(told: Sequence[Event], copies: Sequence[Event], random: Random) -> Sequence[Event]:
    return _reordered([*_ten_times(told, copies, random), *copies], copies, random)


PLANS: Final[dict[str, Plan]] = {
    "once": _once,
    "ten-times": _ten_times,
    "reordered": _reordered,
    "copied": _copied,
    "all-at-once": _all_at_once,
}
FAULT: Final = (
    "each event ten times; an hour's events in any order; a copy of each by the global webhook, "
    "40 min late; all of these at once"
)
LAW: Final = "same final states, same open incidents as told once and in order; nobody is asked"


async def run(folder: Path) -> list[Line]:
    """Tell by webhooks alone, in every order; then as it happens, by clocks that are set."""
    async with postgres(folder) as server, serving(server.dsn, folder, **SETTINGS) as service:
        return [await _orders(server, service), await told_by_clocks(service)]


async def _orders(server: Postgres, service: Service) -> Line:
    random, stage = Random(6), Stage(1, seed=6)
    gateway = Gateway(stage, service.port)
    lives = histories(CHANNELS, random)
    times = _times(lives, random)
    subjects: list[Subject] = []
    lanes: list[Sequence[Event]] = []
    for name, plan in PLANS.items():
        told, copied = await _register(server, service, gateway, name)
        for instance, copyist, life, at in zip(told, copied, lives, times, strict=True):
            subjects.append(Subject(instance, [life.outcome]))
            lanes.append(plan(_told(instance, life, at), _told(copyist, life, at), random))
    await asyncio.gather(*(_deliver(gateway, lane) for lane in lanes))
    settled = await settle(service, subjects, with_reasons=True)
    measured = (
        f"{len(PLANS)} x {CHANNELS} channels; answers: {gateway.told()}; {settled.told(subjects)} "
        "(state, reason, incident)"
    )
    held = gateway.answers.keys() == {204} and not settled.differing
    return Line(FAULT, LAW, measured, held)


def _times(lives: Sequence[History], random: Random) -> list[list[datetime]]:
    """Return when each word was said, in an hour that was over long enough ago for every copy to be late."""
    began = datetime.now(UTC) - HOUR - LATE
    places = random.sample(range(HOUR // APART), sum(len(life.words) for life in lives))
    return [sorted(began + APART * places.pop() for _ in life.words) for life in lives]


async def _register(
    server: Postgres, service: Service, gateway: Gateway, name: str
) -> tuple[Sequence[Instance], Sequence[Instance]]:
    """Register channels on gateways that no other plan has.

    Return them as their own webhooks tell, and as their gateways' global webhooks do.
    """
    told: list[Instance] = []
    copied: list[Instance] = []
    for first in range(0, CHANNELS, FEW):
        names = [f"{name}-{n}" for n in range(first, min(first + FEW, CHANNELS))]
        instances, path = await _register_few(server, service, gateway, f"{name}-from-{first}", names)
        told += instances
        copied += [Instance(it.channel, it.name, path) for it in instances]
    return told, copied


async def _register_few(
    server: Postgres, service: Service, gateway: Gateway, host: str, names: Sequence[str]
) -> tuple[Sequence[Instance], str]:
    """Register channels on a gateway whose clock one more channel tells at once, and its global webhook."""
    url = f"http://127.0.0.1:9/{host}"
    clock, *instances = await service.register(["clock", *names], api_url=url, metadata=THRESHOLD)
    await gateway.deliver(clock.update("connecting"))
    gateway_id = UUID((await service.get(f"/channels/{clock.channel}"))["gateway_id"])
    async with server.connected() as connection:
        token = await create_gateway_token(connection, gateway_id, revoke_others=False)
    return instances, f"/webhooks/evolution_api/{token}"


def _told(instance: Instance, life: History, times: Sequence[datetime]) -> Sequence[Event]:
    return [word.said_by(instance, at) for word, at in zip(life.words, times, strict=True)]


async def _deliver(gateway: Gateway, lane: Sequence[Event]) -> None:
    for event in lane:
        await gateway.deliver(event)
