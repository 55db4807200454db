"""(b) A host of six tenants goes silent and comes back without some; (e) the same, and the service dies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from faults.line import Line
from faults.trouble.checks import Checks
from faults.trouble.sink import Told
from faults.trouble.town import Channel, Town, open_row, seconds, slug
from receiver.sandbox import Fault

LIMIT: Final = 800.0
SPEED: Final = 4.0
TENANTS: Final = 6
EACH: Final = 10
LOST: Final = 7
MINUTES: Final = 2.0
"""The threshold of all channels."""
STALE: Final = 120.0
TELL_AFTER: Final = 30.0
SETTLE: Final = 60.0
TOLD_WITHIN: Final = 5.0
"""Real seconds: rounds and sending aren't compressed."""
NEVER_PAIRED: Final = "Loja vazia"
"""An instance of the first tenant that never was connected."""
WINDOW: Final = 30.0
"""For which further news to a person waits."""
CASES: Final = (
    (Fault.HANG, 1, False),
    (Fault.UNAVAILABLE, 1, False),
    (Fault.HANG, 1, True),
    (Fault.HANG, 3, True),
)
"""How the host is silent, how many services there are, and whether one is killed in the middle."""
LAW: Final = (
    "operators told once, each tenant once, 60 incidents with the cause; a logout on its own; back within "
    "the settle time, the end told once with the lost ones, which keep their incidents without the cause"
)


async def play(town: Town, fault: Fault = Fault.HANG, deaths: bool = False) -> Line:
    """Play it; `deaths`: the service is killed in the middle, once in silence and once at the return."""
    checks = Checks()
    host, channels = await _settle(town)
    await _never_paired(town, host)
    host.fault = fault
    await checks.until(
        "the host is known as silent", lambda: _is_down(town, host), within=town.real(STALE) + 15
    )
    if deaths:
        await town.kill()
        await town.start()
    await _in_error(town, checks, channels)
    await _operators_told(town, checks)
    await _opened(town, checks, channels)
    await _tenants_told(town, checks)
    await _logout(town, checks, channels[0])
    lost = [channels[EACH * tenant + 1] for tenant in range(TENANTS)] + [channels[2]]
    for channel in lost:
        channel.instance.lose()
        channel.instance.is_paired = False
    said = {name: len(town.people(name)) for name in town.tenants}
    host.fault = None
    if deaths:
        await town.kill()
        await town.start()
    await _back(town, checks, [it for it in channels if it not in (*lost, channels[0])])
    await _ended(town, checks, lost, said)
    await _one_returns(town, checks, lost[0])
    silent = [it.text for name in town.tenants for it in town.people(name) if NEVER_PAIRED in it.text]
    checks.that(not silent, f"{len(silent)} messages name the instance that was never paired")
    twice = town.sink.twice()
    checks.that(not twice, f"{len(twice)} news told to a program twice {twice[:3]}")
    name = f"(e) the same, a service of {len(town.ports)} killed (-9) in silence and at the return"
    return checks.line(
        name if deaths else f"(b) a host of {TENANTS} tenants goes silent ({fault.name}) and loses {LOST}",
        LAW,
    )


async def _settle(town: Town) -> tuple[Any, list[Channel]]:
    host = await town.fleet.evolution()
    channels: list[Channel] = []
    for tenant in range(TENANTS):
        name = f"Tenant {tenant}"
        await town.tenant(name, MINUTES, auto_recovery=False)
        names = [f"Loja {tenant:02}{n:02}" for n in range(EACH)]
        channels += await town.watch(host, names, name)
    return host, channels


async def _never_paired(town: Town, host: Any) -> None:
    """Register an instance that is neither counted nor named nor waited for."""
    host.add(slug(NEVER_PAIRED), "close").is_paired = False
    await town.register(host, [NEVER_PAIRED], "Tenant 0")


async def _is_down(town: Town, host: Any) -> bool:
    return bool((await town.gateway(host))["state"] == "down")


async def _in_error(town: Town, checks: Checks, channels: Sequence[Channel]) -> None:
    reasons = {("error", "gateway_unreachable"), ("error", "gateway_unavailable")}
    await checks.until(
        f"all {len(channels)} in error for the gateway's reason",
        lambda: town.counts(channels),
        lambda found: set(found) <= reasons,
        15,
    )


async def _operators_told(town: Town, checks: Checks) -> None:
    told = await checks.until("operators told", town.people, bool, town.real(TELL_AFTER) + 10 + TOLD_WITHIN)
    for incident in (await town.gateway_incidents())[:1]:
        due = seconds(incident["started_at"]) + town.real(TELL_AFTER)
        if told:
            checks.within("operators told, past the time to tell,", told[0].at - due, TOLD_WITHIN, least=-0.5)
            words = told[0].text
            checks.that(
                str(TENANTS * EACH) in words, f"operators read the number of channels: {words[:90]!r}"
            )


async def _opened(town: Town, checks: Checks, channels: Sequence[Channel]) -> None:
    incidents = await checks.until(
        f"{len(channels)} incidents",
        lambda: town.incidents(channels),
        lambda found: len(found) == len(channels),
        town.real(60 * MINUTES) + 15,
    )
    late = [
        seconds(it["opened_at"]) - seconds(it["started_at"]) - town.real(60 * MINUTES) for it in incidents
    ]
    if late:
        checks.within("the last opened, past its threshold,", max(late), TOLD_WITHIN, least=-0.5)
    gateway = {it["id"] for it in await town.gateway_incidents()}
    causes = [it["details"] or {} for it in incidents]
    right = sum(it.get("cause") == "gateway" and it.get("gateway_incident_id") in gateway for it in causes)
    checks.that(right == len(channels), f"{right} of {len(channels)} incidents carry the cause")


async def _tenants_told(town: Town, checks: Checks) -> None:
    await checks.until(
        "each tenant told", lambda: [len(town.people(name)) for name in town.tenants], all, TOLD_WITHIN + 5
    )
    counts = {name: len(town.people(name)) for name in town.tenants}
    checks.that(set(counts.values()) == {1}, f"messages to each tenant's people: {sorted(counts.values())}")
    wrong = [name for name in town.tenants if not _counts_all(town, name)]
    checks.that(not wrong, f"{len(wrong)} tenants don't read that all {EACH} are affected")
    await checks.until(
        "programs told of each",
        lambda: [len({it.news[1] for it in town.programs(name, "incident.opened")}) for name in town.tenants],
        lambda counts: set(counts) == {EACH},
        TOLD_WITHIN,
    )
    messages = len(town.people())
    checks.that(messages == 1, f"operators' people got {messages} message(s) in silence")


def _counts_all(town: Town, name: str) -> bool:
    told = town.people(name)
    return bool(told) and str(EACH) in told[0].text and "gateway" in told[0].text.lower()


async def _logout(town: Town, checks: Checks, channel: Channel) -> None:
    """One logs out meanwhile."""
    before = len(town.people(channel.tenant))
    channel.instance.unlink()
    await checks.until(
        "a logout meanwhile is told on its own, with its link",
        lambda: town.people(channel.tenant)[before:],
        lambda told: any(channel.name in it.text and "/reconnect/" in it.text for it in told),
        town.real(15 + WINDOW) + 5,
    )
    details = [it["details"] or {} for it in await town.incidents([channel])]
    checks.that([it.get("cause") for it in details] == [None], "the logout has no cause")
    kinds = [it.news for it in town.programs(channel.tenant, "incident.changed")]
    checks.that(len(kinds) == 1, f"its program was told {len(kinds)} x incident.changed")


async def _back(town: Town, checks: Checks, channels: Sequence[Channel]) -> None:
    await checks.until(
        f"{len(channels)} back",
        lambda: town.counts(channels),
        lambda found: set(found) == {("open", None)},
        town.real(SETTLE) + 10,
    )

    async def still_open() -> int:
        return sum(it["resolved_at"] is None for it in await town.incidents(channels))

    await checks.until("their incidents resolved", still_open, lambda left: not left, 5)


async def _ended(town: Town, checks: Checks, lost: Sequence[Channel], said: dict[str, int]) -> None:
    names = {name: [it.name for it in lost if it.tenant == name] for name in town.tenants}

    def unread() -> list[str]:
        texts = {name: "\n".join(it.text for it in town.people(name)[said[name] :]) for name in names}
        return [name for name, wanted in names.items() if not all(it in texts[name] for it in wanted)]

    await checks.until(
        "each tenant read which are not back",
        unread,
        lambda left: not left,
        town.real(SETTLE + 15 + WINDOW) + 10,
    )
    open_ = [it for it in await town.incidents(lost) if it["resolved_at"] is None]
    checks.that(len(open_) == LOST, f"{len(open_)} of the {LOST} lost keep their incidents")

    async def caused() -> int:
        return sum(bool((it["details"] or {}).get("cause")) for it in await town.incidents(lost))

    await checks.until("they lost the cause", caused, lambda left: not left, town.real(SETTLE) + 10)
    ends = {name: len(town.people(name)) - said[name] for name in names}
    checks.that(set(ends.values()) == {1}, f"messages at the end to each tenant: {sorted(ends.values())}")

    def lists() -> list[Told]:
        return [told for told in town.people() if any(it.name in told.text for it in lost)]

    def unlisted() -> list[str]:
        return [it.name for it in lost if not any(it.name in told.text for told in lists())]

    await checks.until(
        "operators read which are not back", unlisted, lambda left: not left, town.real(WINDOW) + 5
    )
    checks.that(len(lists()) == 1, f"in {len(lists())} message(s)")
    gateway = await checks.until("the gateway's end told", lambda: town.programs(type="gateway.resolved"))
    checks.that(len(gateway) == 1, f"operators' program told {len(gateway)} x gateway.resolved")
    opened = len(town.programs(type="gateway.opened"))
    checks.that(opened == 1, f"{opened} x gateway.opened")


async def _one_returns(town: Town, checks: Checks, channel: Channel) -> None:
    """One that was named as not back returns later."""
    before = len(town.people(channel.tenant))
    channel.instance.come_back()
    await checks.until(
        "the later return of a lost one is told",
        lambda: "\n".join(it.text for it in town.people(channel.tenant)[before:]),
        lambda text: channel.name in text,
        town.real(STALE + WINDOW) + 10,
    )


async def run(folder: Path) -> list[Line]:
    """Play it for a host that hangs, for one that answers 503, and with deaths of the service."""
    lines = []
    for fault, replicas, deaths in CASES:
        async with open_row(folder, SPEED, replicas) as (town, _):
            lines.append(await play(town, fault, deaths))
    return lines
