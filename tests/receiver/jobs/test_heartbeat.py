"""The watcher is watched: a heartbeat goes out while everything works, and stays out when something waits."""

from datetime import timedelta
from typing import Any

import pytest

from db.connection.types import Connection
from tests.factories import Evolution
from tests.receiver.alerts.sink import Sink, open_sink
from tests.support.service import Zapwatch, zapwatch

OFTEN: dict[str, Any] = {"heartbeat_every": timedelta(seconds=0.1)}


async def beats(z: Zapwatch, sink: Sink, more: int = 2) -> None:
    """Wait for so many more heartbeats."""
    before = len(sink.got)

    async def heard() -> int:
        return len(sink.got) - before

    await z.until(heard, lambda now: now >= more)


HANGING = {
    "probes": "update zapwatch_states set probe_due_at = now() - interval '2 minutes', "
    "probe_claimed_until = now() + interval '1 hour'",
    "deadlines": "update zapwatch_states set due_at = now() - interval '2 minutes', "
    "claimed_until = now() + interval '1 hour'",
    "messages": "with destination as "
    "(insert into zapwatch_destinations (kind, config) values ('webhook', '') returning id) "
    "insert into zapwatch_messages (destination_id, due_at, claimed_until) "
    "select id, now() - interval '2 minutes', now() + interval '1 hour' from destination",
    "loop recovery": "insert into zapwatch_failing_loops "
    "values (gen_random_uuid(), 'recovery', 'elsewhere', now(), now(), 'KeyError')",
}
"""How a loop of another service hangs, having claimed due work and doing nothing, or fails."""


@pytest.mark.parametrize("what", HANGING)
async def test_heartbeat_stays_out_while_something_waits_and_comes_back(
    dsn: str, connection: Connection, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    async with open_sink() as sink, zapwatch(dsn, heartbeat_url=f"{sink.url}/ping", **OFTEN) as z:
        instance = Evolution()
        channel = await z.channel(api_url="http://127.0.0.1:9", api_key="k")
        await z.hear(channel, instance.update("open"), instance.update("close", 401))
        await z.incident(channel)
        await beats(z, sink)

        await connection.execute(HANGING[what])

        async def said() -> str:
            return caplog.text

        await z.until(said, lambda text: f"no heartbeat is sent; late or failing: {what}" in text)
        heard, refused = len(sink.got), caplog.text.count("no heartbeat")
        await z.until(said, lambda text: text.count("no heartbeat") >= refused + 5)
        assert len(sink.got) == heard
        await connection.execute(
            "update zapwatch_states set probe_claimed_until = null, claimed_until = null; "
            "update zapwatch_messages set settled_at = now(), outcome = 'void' where settled_at is null; "
            "delete from zapwatch_failing_loops"
        )
        await beats(z, sink)


async def test_no_heartbeat_is_sent_where_nothing_can_be_written(dsn: str, admin: Connection) -> None:
    async with open_sink() as sink, zapwatch(dsn, heartbeat_url=f"{sink.url}/ping", **OFTEN) as z:
        await beats(z, sink)
        name = await admin.fetchval("select current_database()")
        await admin.execute(f'alter database "{name}" set default_transaction_read_only = on')
        ending = (
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'zapwatch%'"
        )
        await admin.execute(ending)

        async def ready() -> int:
            return (await z.client.post("/tenants", json={"name": "x"})).status_code

        await z.until(ready, lambda status: status == 503)
        heard = len(sink.got)
        await z.until(ready, lambda status: status == 503)
        assert len(sink.got) <= heard + 1
        await admin.execute(f'alter database "{name}" reset default_transaction_read_only')
        await admin.execute(ending)
        await beats(z, sink)


async def test_address_that_refuses_or_hangs_stops_nothing(dsn: str) -> None:
    async with open_sink() as sink, zapwatch(dsn, heartbeat_url=f"{sink.url}/ping", **OFTEN) as z:
        sink.status = 500
        await beats(z, sink, 3)
        assert (await z.client.get("/readyz")).status_code == 200
