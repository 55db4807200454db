"""(f) A host of instances that were never paired is imported: nothing happens. A live one's loss is told."""

from pathlib import Path
from typing import Any, Final

import httpx

from faults.line import Line
from faults.trouble.checks import Checks
from faults.trouble.town import Town, open_row

LIMIT: Final = 240.0
SPEED: Final = 3.0
LIVE: Final = 4
MINUTES: Final = 1.0
LAW: Final = "no incident, no order, no message within twice the threshold; then a loss is told with its link"


async def play(town: Town, dead: int = 200) -> Line:
    """Import it with recovery on."""
    checks = Checks()
    host = await town.fleet.evolution()
    await town.tenant("Loja", MINUTES)
    for n in range(dead):
        host.add(f"dead-{n:03}", "close" if n % 3 else "connecting")
        host.channels[f"dead-{n:03}"].is_paired = False
    for n in range(LIVE):
        host.add(f"live-{n}")
    body = {"provider": "evolution_api", "base_url": host.url, "api_key": host.key}
    gateway = await town.post("/gateways", body)
    host.webhook = gateway["webhook_url"]
    tenant = town.tenants["Loja"]
    answer = await town.service.api.post(f"/gateways/{gateway['id']}/import", params={"tenant_id": tenant})
    answer.raise_for_status()
    await checks.until("all are probed", lambda: _checked(town, answer), within=60 + town.real(120))
    for n in range(0, dead, 20):
        host.channels[f"dead-{n:03}"].show_qr(times=2)
    await town.rest(120 * MINUTES)
    await _silent(town, checks, host)
    live = host.channels["live-0"]
    live.unlink()
    await checks.until(
        "the loss of a live one is told with its link",
        lambda: [it for it in town.people("Loja") if "/reconnect/" in it.text],
        lambda told: len(told) == 1 and "live-0" in told[0].text,
        town.real(15) + 10,
    )
    checks.that(len(await town.incidents()) == 1, f"{len(await town.incidents())} incident(s) then")
    fault = f"(f) a host of {dead} instances never paired and {LIVE} live is imported, recovery on"
    return checks.line(fault, LAW)


async def _checked(town: Town, answer: httpx.Response) -> Any:
    return (await town.service.get(f"/check/{answer.json()['id']}"))["finished_at"]


async def _silent(town: Town, checks: Checks, host: Any) -> None:
    incidents, orders = await town.incidents(), town.orders(host)
    checks.that(not incidents, f"{len(incidents)} incidents")
    checks.that(not orders, f"{orders} orders")
    checks.that(not town.sink.got, f"{len(town.sink.got)} messages")


async def run(folder: Path) -> list[Line]:
    """Play it."""
    async with open_row(folder, SPEED) as (town, _):
        return [await play(town)]
