"""Others in trouble on a host delay nobody: (a) channels that hang, (c) losses that a tenant invents."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from db.registry.tokens import create_operator_token
from faults.line import Line
from faults.trouble.checks import Checks
from faults.trouble.town import Channel, Town, open_row, seconds
from receiver.sandbox import Fault

LIMIT: Final = 240.0
SPEED: Final = 3.0
GRACE: Final = 15.0
GAP: Final = 10.0
"""Between two probes of a doubtful channel."""
LAW_A: Final = "the 404 opens within its grace, one gap between probes and 1 s; the others at their own time"
LAW_C: Final = "another's two: each incident in its time, no cause, its own message, the orders it needs"
INVENTED: Final = 12


async def one_hangs(town: Town) -> Line:
    """(a) One channel hangs, two are in other trouble, and one is gone: each at its own time."""
    checks = Checks()
    host = await town.fleet.evolution()
    await town.tenant("Loja", 1, auto_recovery=False)
    channels = await town.watch(host, [f"Loja {n:02}" for n in range(9)], "Loja")
    hanging, stuck, dropped, gone = channels[:4]
    hanging.instance.fault = Fault.HANG
    stuck.instance.stick()
    dropped.instance.drop(None)
    channels[4].instance.drop(0.4)
    gone.instance.fault = Fault.NOT_FOUND
    patience = town.real(120 + GRACE + GAP) + 10
    [lost] = await checks.until(
        "incident of the 404", lambda: town.incidents([gone]), lambda found: len(found) == 1, patience
    ) or [None]
    if lost is not None:
        waited = seconds(lost["opened_at"]) - seconds(lost["started_at"])
        checks.within("404: opened", waited, town.real(GRACE + GAP) + 1)
        checks.that(not lost["details"].get("cause"), "the 404 has no cause")
    await checks.until(
        "the 404 is told",
        lambda: [it for it in town.programs("Loja") if it.body["data"]["name"] == gone.name],
        bool,
        3,
    )
    for channel, words in ((stuck, "stuck in connecting"), (dropped, "dropped")):
        ask = partial(town.incidents, [channel])
        found = await checks.until(f"incident of one {words}", ask, bool, patience)
        for incident in found:
            waited = seconds(incident["opened_at"]) - seconds(incident["started_at"])
            checks.within(f"{words}: opened", waited, town.real(60) + 1.5)
    checks.that(not await town.gateway_incidents(), "no incident of the gateway")
    return checks.line("(a) one channel of nine hangs, two are in other trouble, one is gone", LAW_A)


async def inventions(town: Town, token: str) -> Line:
    """(c) A tenant puts channels on a host and invents their losses while another's is logged out.

    `token` is one of the tenant "Rogue".
    """
    checks = Checks()
    host = await town.fleet.evolution()
    await town.tenant("Loja", 1)
    channels = await town.watch(host, [f"Loja {n:02}" for n in range(14)], "Loja")
    rogue = await town.register(host, [f"Rogue {n:02}" for n in range(INVENTED)], "Rogue", token)
    await checks.until("the inventor's channels are open", lambda: _open(town, rogue), within=30)
    victim, dropped = channels[:2]
    for channel in rogue:
        channel.instance.drop(None)
        channel.instance.fault = Fault.HANG
    victim.instance.unlink()
    dropped.instance.drop(None)
    found = await checks.until(
        "incident of the logout", lambda: town.incidents([victim]), bool, town.real(GRACE) + 10
    )
    for incident in found:
        waited = seconds(incident["opened_at"]) - seconds(incident["started_at"])
        checks.within("logout: opened", waited, town.real(GRACE) + 1)
    told = await checks.until("logout told", lambda: town.people("Loja"), bool, 5)
    checks.that(told and victim.name in told[0].text and "/reconnect/" in told[0].text, "told with its link")
    await _drop_told(town, checks, dropped)
    causes = {(it["details"] or {}).get("cause") for it in await town.incidents([victim, dropped])}
    checks.that(causes == {None}, f"the causes of both are {causes}")
    checks.that(dropped.instance.ordered, f"{len(dropped.instance.ordered)} orders to the dropped one")
    checks.that(len(town.people("Loja")) == 2, f"the other tenant's people got {len(town.people('Loja'))}")
    others = await town.counts(channels[2:])
    checks.that(set(others) == {("open", None)}, f"its other channels are {dict(others)}")
    return checks.line(
        f"(c) a tenant invents {INVENTED} losses, one of another's is logged out, one dropped", LAW_C
    )


async def _drop_told(town: Town, checks: Checks, channel: Channel) -> None:
    """One that is dropped without a terminal reason: its incident after its threshold, told as its own."""
    patience = town.real(60 + GAP) + 10
    found = await checks.until(
        "incident of the dropped one", lambda: town.incidents([channel]), bool, patience
    )
    for incident in found:
        waited = seconds(incident["opened_at"]) - seconds(incident["started_at"])
        checks.within("dropped: opened", waited, town.real(60) + 1.5)
    await checks.until(
        "the dropped one is told",
        lambda: "\n".join(it.text for it in town.people("Loja")[1:]),
        lambda text: channel.name in text,
        town.real(30) + 5,
    )


async def _open(town: Town, channels: Sequence[Channel]) -> Any:
    return set(await town.counts(channels)) == {("open", None)}


async def run(folder: Path) -> list[Line]:
    """Play both."""
    lines = []
    async with open_row(folder, SPEED) as (town, _):
        lines.append(await one_hangs(town))
    async with open_row(folder, SPEED) as (town, server), server.connected() as connection:
        rogue = await town.tenant("Rogue", 1, auto_recovery=False)
        token = await create_operator_token(connection, "rogue", UUID(rogue))
        lines.append(await inventions(town, token))
    return lines
