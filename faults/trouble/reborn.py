"""(i) Host and Zapwatch die together and return after an hour: nobody is told of a host that is up."""

from pathlib import Path
from typing import Final

from faults.line import Line
from faults.trouble.checks import Checks
from faults.trouble.silence import _is_down
from faults.trouble.town import Town, open_row
from receiver.sandbox import Fault

LIMIT: Final = 300.0
SPEED: Final = 60.0
CHANNELS: Final = 20
MINUTES: Final = 5.0
HOUR: Final = 3600.0
LAW: Final = "no message; all open"


async def play(town: Town, away: float = HOUR, verdict_first: bool = True) -> Line:
    """Let both be dead for so long; `verdict_first`: the host's silence was known before the service died."""
    checks = Checks()
    host = await town.fleet.evolution()
    await town.tenant("Loja", MINUTES)
    channels = await town.watch(host, [f"Loja {n:02}" for n in range(CHANNELS)], "Loja")
    host.fault = Fault.REFUSED
    if verdict_first:
        await checks.until("known as silent", lambda: _is_down(town, host), within=town.real(130) + 10)
    await town.kill()
    await town.rest(away)
    host.fault = None
    await town.start()
    await checks.until(
        "all open",
        lambda: town.counts(channels),
        lambda found: set(found) == {("open", None)},
        town.real(120) + 20,
    )
    await town.rest(90)
    checks.that(not town.sink.got, f"{len(town.sink.got)} messages")
    incidents = await town.incidents()
    checks.that(not incidents, f"{len(incidents)} incidents of channels")
    when = "after the verdict" if verdict_first else "before the verdict"
    return checks.line(f"(i) host and service die together, {when}, and are back after an hour", LAW)


async def run(folder: Path) -> list[Line]:
    """Play it with the verdict before both die, and without."""
    lines = []
    for verdict_first in (True, False):
        async with open_row(folder, SPEED) as (town, _):
            lines.append(await play(town, verdict_first=verdict_first))
    return lines
