"""(h) Our own line is cut, with four gateways: nobody is told, then operators once, and that it may be us."""

from pathlib import Path
from typing import Final

from faults.line import Line
from faults.trouble.checks import Checks
from faults.trouble.town import Channel, Town, open_row
from receiver.sandbox import Fault

LIMIT: Final = 300.0
SPEED: Final = 4.0
GATEWAYS: Final = 4
EACH: Final = 5
MINUTES: Final = 10.0
LAW: Final = (
    "90 s: nobody is told, no state moves; 5 min: operators once, with perhaps_offline, and no tenant"
)


async def play(town: Town) -> Line:
    """Cut it for 90 s, then for five minutes."""
    checks = Checks()
    await town.tenant("Loja", MINUTES)
    hosts = [await town.fleet.evolution() for _ in range(GATEWAYS)]
    channels: list[Channel] = []
    for place, host in enumerate(hosts):
        names = [f"Loja {place:02}{n:02}" for n in range(EACH)]
        channels += await town.watch(host, names, "Loja")
    for host in hosts:
        host.fault = Fault.HANG
    await town.rest(90)
    states = await town.counts(channels)
    checks.that(set(states) == {("open", None)}, f"after 90 s: {dict(states)}")
    for host in hosts:
        host.fault = None
    await town.rest(60)
    checks.that(not town.sink.got, f"{len(town.sink.got)} messages of 90 s")
    for host in hosts:
        host.fault = Fault.HANG
    told = await checks.until("operators told", town.people, bool, town.real(300) + 10)
    shown = [it["details"] or {} for it in await town.gateway_incidents()]
    doubted = sum(bool(it.get("perhaps_offline")) for it in shown)
    checks.that(shown and doubted == len(shown), f"{doubted} of {len(shown)} incidents say perhaps_offline")
    await town.rest(60)
    checks.that(len(told) == len(town.people()) == 1, f"{len(town.people())} message(s) to operators")
    checks.that(not town.people("Loja"), f"{len(town.people('Loja'))} to the tenant")
    for host in hosts:
        host.fault = None
    await checks.until(
        "all open again",
        lambda: town.counts(channels),
        lambda found: set(found) == {("open", None)},
        town.real(90) + 10,
    )
    checks.that(not await town.incidents(), f"{len(await town.incidents())} incidents of channels")
    return checks.line(f"(h) our own line is cut for 90 s, then for 5 min, {GATEWAYS} gateways", LAW)


async def run(folder: Path) -> list[Line]:
    """Play it."""
    async with open_row(folder, SPEED) as (town, _):
        return [await play(town)]
