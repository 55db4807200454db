"""What the demo's fleet does: gateways, channels with names, and what befalls each, over and over."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from receiver.sandbox import Fault, Fleet
from receiver.sandbox.channel import SandboxChannel
from receiver.sandbox.evolution.host import EvolutionHost
from receiver.sandbox.evolution.instance import Instance
from receiver.sandbox.twilio import Sender
from receiver.sandbox.wapi import WapiInstance

InstanceScript = Callable[[Fleet, Instance], Awaitable[None]]

FIRST_REST: Final = (20.0, 560.0)
"""Seconds, of real time, between a channel's first trouble and its second; each takes another time."""
REST: Final = (600.0, 700.0)
"""The same, later. Five departures within thirty minutes would be flapping, for ever after."""
DUEL: Final = 24
"""How often the two systems that fight for one session replace each other: each time it is back at once."""
DUEL_GAP: Final = 10.0
"""Seconds between two of these, before the fleet's speed."""
SETTLED: Final = 600.0
"""Seconds, of real time, after which a flapping channel is stable again."""
CARE: Final = "Clínica Sorriso"
SHOPS: Final = "Lojas Aurora"


@dataclass(frozen=True, slots=True)
class DemoChannel:
    """One channel of the demo: its tenant, its display name, its gateway and its story."""

    tenant: str
    name: str
    provider: str
    url: str
    """The address of its gateway."""
    channel: SandboxChannel
    script: Callable[[], Awaitable[None]]


async def build(fleet: Fleet) -> list[DemoChannel]:
    """Return the cast; their scripts have not begun."""
    shops, old, hanging = (
        await fleet.evolution("2.3.6"),
        await fleet.evolution("1.8.2"),
        await fleet.evolution("2.3.7"),
    )
    wapi, twilio = await fleet.wapi(), await fleet.twilio()
    return [
        *_evolution(fleet, shops, SHOPS, {
            "Loja Centro": unlinked,
            "Loja Norte": dropped,
            "Loja Sul": flooding,
            "Loja Leste": vanished,
            "Loja Oeste": chatting,
            "Loja Shopping": flapping,
            "Loja Online": unscanned,
        }),
        *_evolution(fleet, old, CARE, {"Recepção": chatting, "Agendamento": logged_out}),
        *_evolution(fleet, hanging, CARE, {
            "Unidade Jardins": chatting,
            "Unidade Moema": partial(hanging_host, hanging),
        }),
        *(
            DemoChannel(SHOPS, name, "wapi", wapi.url, channel, partial(script, fleet, channel))
            for name, script, channel in (
                ("Vendas", disconnected, wapi.add()),
                ("Suporte", chatting, wapi.add()),
                ("Cobrança", vanished, wapi.add()),
            )
        ),
        *(
            DemoChannel(CARE, name, "twilio", twilio.url, channel, partial(script, fleet, channel))
            for name, script, channel in (
                ("Lembretes", offline, twilio.add()),
                ("Pesquisas", resting, twilio.add()),
            )
        ),
    ]  # fmt: skip


def _evolution(
    fleet: Fleet, host: EvolutionHost, tenant: str, scripts: dict[str, InstanceScript]
) -> Iterator[DemoChannel]:
    for name, script in scripts.items():
        channel = host.add(name.lower().replace(" ", "-"))
        yield DemoChannel(tenant, name, "evolution_api", host.url, channel, partial(script, fleet, channel))


async def play(fleet: Fleet, part: DemoChannel) -> None:
    """Have its script befall a channel, again and again with a long rest between."""
    await fleet.pause(random.uniform(0, 60))
    rest = FIRST_REST
    while True:
        await part.script()
        await asyncio.sleep(random.uniform(*rest))
        rest = REST


async def unlinked(fleet: Fleet, channel: Instance) -> None:
    """The device is removed on the phone, and scanned again later."""
    await fleet.pause(120)
    channel.unlink()
    await fleet.pause(500)
    await channel.scan()


async def logged_out(fleet: Fleet, channel: Instance) -> None:
    """The instance is logged out by API."""
    await fleet.pause(400)
    channel.logout()
    await fleet.pause(400)
    await channel.scan()


async def dropped(fleet: Fleet, channel: Instance) -> None:
    """The connection is lost for longer than the grace, then comes back."""
    await fleet.pause(60)
    await channel.drop(500)


async def flooding(fleet: Fleet, channel: Instance) -> None:
    """WhatsApp can't be reached for a moment: a flood of connecting with a false close. No incident."""
    await fleet.pause(300)
    await channel.flood(60, pace=1, false_close=True)
    await channel.connect()


async def vanished(fleet: Fleet, channel: SandboxChannel) -> None:
    """The session is gone without a word; only a probe finds out."""
    await fleet.pause(200)
    channel.vanish()
    await fleet.pause(700)
    channel.come_back()


async def flapping(fleet: Fleet, channel: Instance) -> None:
    """Two systems fight for one session."""
    await fleet.pause(400)
    await channel.flap(DUEL, gap=DUEL_GAP)
    await asyncio.sleep(SETTLED)


async def unscanned(fleet: Fleet, channel: Instance) -> None:
    """A QR is shown and never scanned."""
    await fleet.pause(500)
    await channel.unlink()
    await channel.show_qr(times=4)
    await fleet.pause(500)
    await channel.scan()


async def disconnected(fleet: Fleet, channel: WapiInstance) -> None:
    """W-API says that a session is lost, and it is."""
    await fleet.pause(150)
    channel.disconnect()
    await fleet.pause(250)
    channel.connect()


async def offline(fleet: Fleet, channel: Sender) -> None:
    """Twilio takes a sender offline."""
    await fleet.pause(100)
    channel.become("OFFLINE")
    await fleet.pause(700)
    channel.become("ONLINE")


async def hanging_host(host: EvolutionHost, fleet: Fleet, _channel: SandboxChannel) -> None:
    """A gateway accepts connections and never answers."""
    await fleet.pause(500)
    host.fault = Fault.HANG
    await fleet.pause(600)
    host.fault = None


async def chatting(fleet: Fleet, channel: Instance | WapiInstance) -> None:
    """Customers write."""
    while True:
        channel.message()
        await fleet.pause(random.uniform(20, 90))


async def resting(_fleet: Fleet, _channel: SandboxChannel) -> None:
    """Nothing happens, which is fine."""
    await asyncio.Event().wait()
