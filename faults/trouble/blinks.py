"""(g) A host restarts and its channels blink: nobody is told. A logout is, and five falls are one message."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from faults.line import Line
from faults.trouble.checks import Checks
from faults.trouble.town import Channel, Town, open_row, seconds
from receiver.sandbox import Fault

LIMIT: Final = 720.0
SPEED: Final = 3.0
SPEED_OF_FALLS: Final = 2.0
"""To know of a fall and of its end takes real seconds; both end before the time to tell."""
CHANNELS: Final = 14
GRACE: Final = 15.0
FALLS: Final = 5
FALLEN: Final = 5.0
"""Seconds that it stays down once that is known: too short for operators to be told of one fall."""
UP: Final = 30.0
LAW: Final = "states move, nobody is told; a logout 3 s after the return is told after its own grace"
LAW_FIVE: Final = "one incident, one message to operators, none to tenants below their threshold"


async def play(town: Town) -> Line:
    """Restart it for 20 s, have all blink for 1 s and for 25 s, then log one out."""
    checks = Checks()
    host, channels = await _settle(town)
    await _restart(town, checks, host, channels)
    for lasting in (1.0, 25.0):
        scripts = [channel.instance.drop(lasting) for channel in channels]
        await _moves(town, checks, channels, lasting)
        await asyncio.gather(*scripts)
        await _all_open(town, checks, channels, f"back from {lasting:.0f} s")
    quiet = len(town.sink.got)
    checks.that(not quiet, f"{quiet} messages until then")
    await town.rest(3)
    channels[0].instance.unlink()
    found = await checks.until(
        "the logout's incident", lambda: town.incidents(channels[:1]), bool, town.real(GRACE) + 10
    )
    for incident in found:
        waited = seconds(incident["opened_at"]) - seconds(incident["started_at"])
        checks.within("logout: opened", waited, town.real(GRACE) + 1)
    await checks.until(
        "the logout is told",
        lambda: town.people("Loja"),
        lambda told: len(told) == 1 and "/reconnect/" in told[0].text,
        5,
    )
    incidents = await town.incidents()
    checks.that(len(incidents) == 1, f"{len(incidents)} incident(s) of channels in all")
    return checks.line("(g) a host restarts for 20 s, all blink for 1 s and for 25 s; then a logout", LAW)


async def falls(town: Town) -> Line:
    """Five silences within half an hour."""
    checks = Checks()
    host, channels = await _settle(town)
    for _ in range(FALLS):
        host.fault = Fault.REFUSED
        await checks.until("fallen", lambda: _state(town, host, "down"), within=town.real(120) + 10)
        await town.rest(FALLEN)
        host.fault = None
        await _all_open(town, checks, channels, "back")
        await town.rest(UP)
    told = len(town.people())
    checks.that(told == 1, f"{told} message(s) to operators")
    opened = len(town.programs(type="gateway.opened"))
    checks.that(opened == 1, f"{opened} x gateway.opened")
    checks.that(not town.people("Loja"), f"{len(town.people('Loja'))} to the tenant")
    flapping = [(it["details"] or {}).get("flapping") for it in await town.gateway_incidents()]
    checks.that(True in flapping, f"flapping is told in {flapping}")
    return checks.line(f"(g) the same host is silent {FALLS} times in half an hour", LAW_FIVE)


async def _settle(town: Town) -> tuple[Any, Sequence[Channel]]:
    host = await town.fleet.evolution()
    await town.tenant("Loja", minutes=5)
    return host, await town.watch(host, [f"Loja {n:02}" for n in range(CHANNELS)], "Loja")


async def _state(town: Town, host: Any, state: str) -> bool:
    return bool((await town.gateway(host))["state"] == state)


async def _restart(town: Town, checks: Checks, host: Any, channels: Sequence[Channel]) -> None:
    await host.restart(down=20)
    await _all_open(town, checks, channels, "back from a restart of 20 s")


async def _moves(town: Town, checks: Checks, channels: Sequence[Channel], lasting: float) -> None:
    await checks.until(
        f"all left open for {lasting:.0f} s",
        lambda: _departed(town, channels),
        lambda count: count == len(channels),
        10,
    )


async def _departed(town: Town, channels: Sequence[Channel]) -> int:
    """Return how many channels have a departure from open in their history since they were open."""
    count = 0
    for channel in channels:
        events = (await town.service.get(f"/channels/{channel.id}/events", limit="20"))["items"]
        count += any(event.get("state") == "connecting" for event in events)
    return count


async def _all_open(town: Town, checks: Checks, channels: Sequence[Channel], words: str) -> None:
    await checks.until(
        words, lambda: town.counts(channels), lambda found: set(found) == {("open", None)}, town.real(90) + 10
    )


async def run(folder: Path) -> list[Line]:
    """Play both."""
    lines = []
    for scenario, speed in ((play, SPEED), (falls, SPEED_OF_FALLS)):
        async with open_row(folder, speed) as (town, _):
            lines.append(await scenario(town))
    return lines
