"""The same history told as it happens, by gateways whose clocks are set in the middle of it.

A clock set back makes true words look late. Then the law is that a probe follows at once, so these gateways
can be asked, and answer what is true at that moment.
"""

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final, NamedTuple

from faults.gateway import Gateway, Instance
from faults.history import CHANNELS, THRESHOLD, History, Outcome, histories
from faults.line import Line
from faults.service import Service
from faults.subject import Subject, settle
from receiver.sandbox import Fleet, open_fleet
from receiver.sandbox.evolution.host import EvolutionHost
from receiver.sandbox.stage import Stage

STEPS: Final = (
    timedelta(seconds=10),
    timedelta(minutes=10),
    timedelta(minutes=20),
    timedelta(hours=1),
    timedelta(hours=3),
)
LIKE_LATENESS: Final = tuple(-step for step in STEPS[:3])
"""A step back of other than whole quarters of an hour can't be told from lateness, so it isn't learnt."""
PACE: Final = 0.4
"""Seconds between two words of a channel."""
FAULT: Final = "a gateway's clock is set back or forward by 10 s, 10 min, 20 min, 1 h, 3 h meanwhile"
LAW: Final = (
    "same final states, same open incidents; where a step back looks like lateness (10 s, 10 min, 20 min), "
    "a QR may read as connecting: a gateway that is asked knows no QR"
)


class Teller(NamedTuple):
    """A gateway, what it says of its channels, and by how much its clock is set."""

    host: EvolutionHost
    step: timedelta
    channels: list[tuple[Instance, History]]

    @property
    def subjects(self) -> list[Subject]:
        """Its channels, and where they may stand in the end."""
        return [Subject(instance, self._outcomes(life.outcome)) for instance, life in self.channels]

    def _outcomes(self, outcome: Outcome) -> Collection[Outcome]:
        outcome = outcome._replace(reason=None)
        if outcome.state != "qr_pending" or self.step not in LIKE_LATENESS:
            return [outcome]
        return [outcome, Outcome("connecting", None, outcome.incident and "connecting")]

    async def say(self, gateway: Gateway, turn: int, turns: int) -> None:
        """Say each channel's word of this turn; all say their last one in the last."""
        step = self.step if turn >= turns // 2 else timedelta(0)
        for instance, life in self.channels:
            n = len(life.words) - turns + turn
            if n >= 0:
                self.host.channels[instance.name].lose(life.words[n].memory)
                await gateway.deliver(life.words[n].said_by(instance, datetime.now(UTC) + step))


async def told_by_clocks(service: Service) -> Line:
    """Tell by one clock that stays as it is and by those that don't, and look where the channels stand."""
    lives = histories(CHANNELS, Random(7))
    turns = max(len(life.words) for life in lives)
    gateway = Gateway(Stage(1, seed=7), service.port)
    async with open_fleet() as fleet:
        steps = (timedelta(0), *STEPS, *(-step for step in STEPS))
        tellers = [await _teller(service, fleet, step, lives) for step in steps]
        for turn in range(turns):
            await asyncio.gather(*(teller.say(gateway, turn, turns) for teller in tellers))
            await asyncio.sleep(PACE)
        subjects = [subject for teller in tellers for subject in teller.subjects]
        settled = await settle(service, subjects, with_reasons=False)
        asked = sum(len(it.probed) for teller in tellers for it in teller.host.channels.values())
    unread = sum(
        len(it.outcomes) > 1 and settled.found[it.instance.channel].state == "connecting" for it in subjects
    )
    measured = (
        f"{len(tellers)} x {CHANNELS} channels; answers: {gateway.told()}; asked {asked:,} times; "
        f"{settled.told(subjects)} (state, incident); {unread} show a QR and read as connecting"
    )
    return Line(FAULT, LAW, measured, gateway.answers.keys() == {204} and not settled.differing)


async def _teller(service: Service, fleet: Fleet, step: timedelta, lives: list[History]) -> Teller:
    host = await fleet.evolution()
    names = [f"{step.total_seconds():+.0f}s-{n}" for n in range(CHANNELS)]
    for name in names:
        host.add(name, "connecting")
    known = {"api_url": host.url, "api_key": host.key, "metadata": {**THRESHOLD, "auto_recovery": False}}
    instances = await service.register(names, **known)
    return Teller(host, step, list(zip(instances, lives, strict=True)))
