"""The running service forgets old events by EVENTS_KEEP_DAYS, as an operator sees it."""

from datetime import UTC, datetime, timedelta

from db.history.retention import take_snapshots
from db.ingest.apply import apply
from db.ingest.quarantine import UNKNOWN_FOR, prune
from statemachine.model import Trigger
from tests.conftest import connected
from tests.db.entries import RULES, T0, Of, register
from tests.support.service import zapwatch

DAY = timedelta(days=1)


async def test_the_service_forgets_events_after_their_days_and_keeps_state_and_incidents(dsn: str) -> None:
    async with connected(dsn) as connection:
        of = Of(await register(connection, api_url=""))
        # The present is 30 days after T0, whatever the clock says.
        past = datetime.now(UTC) - T0 - 30 * DAY
        for days in range(6):
            now = (past + days * DAY).total_seconds()
            lost = [of.told(now, Trigger.OPENED), of.told(now + 60, Trigger.UNPAIRED), of.deadline(now + 90)]
            await apply(connection, lost, RULES)
            await connection.execute("update zapwatch_channels set retention_due_at = '-infinity'")
            await take_snapshots(connection, T0 + past + days * DAY + timedelta(minutes=5), 7 * DAY)
        await connection.execute("update zapwatch_channels set retention_due_at = now()")
        before = await connection.fetchval("select count(*) from zapwatch_events")

    channel = str(of.channel_id)
    async with zapwatch(dsn, events_keep_days=7) as z:
        events = await z.until(lambda: z.events(channel), lambda events: len(events) == 1)
        state = await z.state(channel)
        incidents = (await z.get("/incidents", status="all"))["items"]

    assert before == 18
    assert events[0]["source"] == "deadline"
    assert state["state"] == "disconnected"
    assert state["incident"] is not None
    assert len(incidents) == 6


async def test_an_unknown_instance_is_forgotten_once_it_was_silent_for_long(dsn: str) -> None:
    async with connected(dsn) as connection, zapwatch(dsn) as z:
        body = {"provider": "evolution_api", "base_url": "http://127.0.0.1:9/x", "api_key": "k"}
        hook = (await z.client.post("/gateways", json=body)).json()["webhook_url"]
        told = {"event": "connection.update", "data": {"state": "open"}}
        for instance in ("silent", "talking"):
            assert await z.post(hook, told | {"instance": instance}) == 202
        await connection.execute(
            "update zapwatch_unknown_instances set last_at = now() - $1::interval where instance = 'silent'",
            UNKNOWN_FOR + timedelta(minutes=1),
        )

        await prune(connection, datetime.now(UTC))

        rows = await connection.fetch("select instance from zapwatch_unknown_instances")
    assert [row["instance"] for row in rows] == ["talking"]
