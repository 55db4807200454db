"""Every channel of a large installation closes within one second, each on a connection of its own."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from bench.population import open_to_webhooks, populate
from db.connection.types import Connection
from db.migrate import migrate
from faults.gateway import Event, Gateway, Instance
from faults.ledger import audit
from faults.line import Line
from faults.postgres import Postgres, postgres
from faults.service import serving
from receiver.sandbox.stage import Stage

LIMIT: Final = 150.0
CHANNELS: Final = 10_000
GATEWAYS: Final = 100
WITHIN: Final = 1.0
"""Seconds in which all of them close."""
STORED_WITHIN: Final = 30.0
STEPS: Final = 100
"""Portions in which they are sent."""
CODES: Final = (401, 428)
"""In turn: logged out, connection closed."""
CHANNELS_OF: Final = "select channel_id, instance from zapwatch_channels"
CLOSED: Final = "select count(*) from zapwatch_states where state like 'disconnected/%'"


async def run(folder: Path) -> list[Line]:
    """Close all channels, and wait until all of it is stored and every gateway has heard so."""
    async with postgres(folder) as server, server.connected() as connection:
        await migrate(connection)
        events = await _events(connection)
        stage = Stage(1, seed=4)
        try:
            async with serving(server.dsn, folder) as service:
                gateway = Gateway(stage, service.port)
                return [await _storm(server, connection, gateway, events)]
        finally:
            await stage.end()


async def _events(connection: Connection) -> list[Event]:
    """Fill the database with open channels, and return how each of them closes, stamped over the second."""
    await populate(connection, CHANNELS, GATEWAYS)
    await open_to_webhooks(connection)
    rows = await connection.fetch(CHANNELS_OF)
    instances = [
        Instance(row["channel_id"], row["instance"], f"/webhooks/evolution_api/zw_{row['channel_id']}")
        for row in rows
    ]
    began = datetime.now(UTC)
    return [
        instance.update("close", CODES[n % 2], began + timedelta(seconds=WITHIN * n / CHANNELS))
        for n, instance in enumerate(instances)
    ]


async def _storm(server: Postgres, connection: Connection, gateway: Gateway, events: Sequence[Event]) -> Line:
    now = asyncio.get_running_loop().time
    began = now()
    stored = asyncio.create_task(_all_stored(server))
    for step in range(STEPS):
        await asyncio.sleep(began + WITHIN * step / STEPS - now())
        for event in events[step::STEPS]:
            gateway.send(event)
    sent_after = now() - began
    stored_after = await stored - began
    await gateway.said()
    found = await audit(connection, gateway.acknowledged)
    measured = (
        f"sent within {sent_after:.1f} s, all stored after {stored_after:.1f} s; "
        f"answers: {gateway.told()}; {found.lost} lost"
    )
    held = (
        found.acknowledged == CHANNELS
        and not found.lost
        and stored_after <= STORED_WITHIN
        and gateway.answers.keys() <= {204, 503}
    )
    law = f"all stored within {STORED_WITHIN:.0f} s; shed only with 503"
    return Line(f"{CHANNELS:,} channels close within {WITHIN:.0f} s", law, measured, held)


async def _all_stored(server: Postgres) -> float:
    """Return when the database showed that all have closed."""
    async with server.connected() as connection:
        while await connection.fetchval(CLOSED) < CHANNELS:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # the database tells nobody
    return asyncio.get_running_loop().time()
