"""Many channels of a host that answers leave at once, and most return: both are told by their cause."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from faults.line import Line
from faults.trouble.checks import Checks
from faults.trouble.town import Channel, Town, open_row, seconds

LIMIT: Final = 300.0
SPEED: Final = 3.0
TENANTS: Final = {"Norte": 10, "Sul": 4}
"""How many channels each has."""
LOST: Final = {"Norte": 6, "Sul": 2}
STAY_AWAY: Final = 2
"""Of those of the first tenant."""
MINUTES: Final = 1.0
AWAY: Final = 120.0
"""Seconds for which the others are away: past the threshold, and past the time to tell operators."""
TELL_AFTER: Final = 30.0
SETTLE: Final = 60.0
WINDOW: Final = 30.0
LOSS_WORDS: Final = "perdeu 8 dos seus 14 canais"
END_WORDS: Final = "6 canais voltaram, 2 não voltaram"
"""What operators read, in the language of an installation that sets none."""
LAW: Final = (
    "operators read how many of how many were lost, each tenant once of its own; at the end how many are "
    "back; those that stay away keep their incidents without the cause and are named"
)


async def play(town: Town) -> Line:
    """Drop eight of fourteen; six come back."""
    checks = Checks()
    host, channels = await _settle(town)
    lost = {name: channels[name][: LOST[name]] for name in TENANTS}
    stay_away = lost["Norte"][:STAY_AWAY]
    for channel in [it for those in lost.values() for it in those]:
        channel.instance.drop(None if channel in stay_away else AWAY)
    await _told_of_the_loss(town, checks, host)
    for name, told in (("Norte", "6 of your 10"), ("Sul", "2 of your 4")):
        await checks.until(
            f"{name} reads {told}",
            lambda name=name: town.people(name),  # type: ignore[misc]
            lambda found, told=told: len(found) == 1 and told in found[0].text,  # type: ignore[misc]
            town.real(60 * MINUTES) + 10,
        )
    carried = [(it["details"] or {}).get("cause") for it in await town.incidents()]
    checks.that(set(carried) == {"gateway"}, f"{len(carried)} incidents of channels, with the cause")
    await _told_of_the_end(town, checks, stay_away)
    return checks.line(
        f"{sum(LOST.values())} of {sum(TENANTS.values())} channels of a host leave, {STAY_AWAY} for good", LAW
    )


async def _settle(town: Town) -> tuple[Any, dict[str, list[Channel]]]:
    host = await town.fleet.evolution()
    channels = {}
    for name, count in TENANTS.items():
        await town.tenant(name, MINUTES, auto_recovery=False)
        channels[name] = await town.watch(host, [f"{name} {n:02}" for n in range(count)], name)
    return host, channels


async def _told_of_the_loss(town: Town, checks: Checks, host: Any) -> None:
    told = await checks.until("operators told", town.people, bool, town.real(TELL_AFTER) + 10)
    incidents = await town.gateway_incidents()
    kinds = [it["kind"] for it in incidents]
    checks.that(kinds == ["mass_loss"], f"incidents of the gateway: {kinds}")
    if told and incidents:
        due = seconds(incidents[0]["started_at"]) + town.real(TELL_AFTER)
        checks.within("operators told, past the time to tell,", told[0].at - due, 5, least=-0.5)
        checks.that(LOSS_WORDS in told[0].text, f"operators read {told[0].text[:90]!r}")
    state = (await town.gateway(host))["state"]
    checks.that(state == "up", f"the gateway is {state}")


async def _told_of_the_end(town: Town, checks: Checks, stay_away: Sequence[Channel]) -> None:
    patience = town.real(AWAY + SETTLE + WINDOW + 15) + 15
    await checks.until(
        "operators read the end",
        lambda: town.people()[1:],
        lambda told: any(END_WORDS in it.text for it in told),
        patience,
    )
    names = [it.name for it in stay_away]
    await checks.until(
        "the tenant reads which are not back",
        lambda: "\n".join(it.text for it in town.people("Norte")[1:]),
        lambda text: all(name in text for name in names),
        patience,
    )
    await checks.until(
        "operators read which are not back",
        lambda: "\n".join(it.text for it in town.people()[1:]),
        lambda text: all(name in text for name in names),
        patience,
    )
    await checks.until("the other reads of its return", lambda: town.people("Sul")[1:], bool, patience)
    left = [it for it in await town.incidents() if it["resolved_at"] is None]
    checks.that(len(left) == STAY_AWAY, f"{len(left)} incidents stay open")

    async def caused() -> int:
        return sum(bool((it["details"] or {}).get("cause")) for it in await town.incidents(stay_away))

    await checks.until("they lost the cause", caused, lambda found: not found, town.real(SETTLE) + 5)
    counts = {name: len(town.people(name)) for name in TENANTS}
    checks.that(counts["Sul"] == 2 and counts["Norte"] <= 3, f"messages to tenants in all: {counts}")
    resolved = len(town.programs(type="gateway.resolved"))
    checks.that(resolved == 1, f"operators' program told {resolved} x gateway.resolved")


async def run(folder: Path) -> list[Line]:
    """Play it."""
    async with open_row(folder, SPEED) as (town, _):
        return [await play(town)]
