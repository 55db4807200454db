"""The whole service on another application's database, as an ordinary owner without BYPASSRLS."""

from uuid import UUID

import asyncpg

from db.registry.tokens import create_channel_token
from tests.conftest import connected
from tests.factories import Evolution
from tests.support.service import zapwatch

CHANNEL = "00000000-0000-4000-8000-0000000000c1"


async def test_adopted_channel_is_watched_and_its_old_incident_ends(adopted_dsn: str) -> None:
    async with zapwatch(adopted_dsn) as z, connected(adopted_dsn) as connection:
        token = await create_channel_token(connection, UUID(CHANNEL), revoke_others=False)
        z.hooks[CHANNEL] = f"http://zapwatch/webhooks/evolution_api/{token}"
        shown = await z.state(CHANNEL)
        assert (shown["state"], shown["instance"], shown["incident"]["kind"]) == (
            "unknown",
            "loja",
            "disconnected",
        )
        assert shown["monitoring"]["threshold_minutes"] == 5
        assert await connection.fetchval(
            "select connection_status from notification_channels where id = $1", UUID(CHANNEL)
        ) in ("CONNECTED", "CLOSED")
        instance = Evolution("loja")

        await z.hear(CHANNEL, instance.update("open"))
        assert (await z.state(CHANNEL))["incident"] is None
        await z.hear(CHANNEL, instance.closed(), instance.logout(), instance.update("close", 401))

        opened = await z.incident(CHANNEL)
        row = await connection.fetchrow(
            "select kind, last_state, duration_seconds from whatsapp_connection_incidents where id = $1",
            UUID(opened["id"]),
        )
        assert row is not None
        assert tuple(row) == ("disconnected", "disconnected/unpaired", None)
        audited = await connection.fetch("select what from audit order by id")
        assert "whatsapp_connection_incidents INSERT" in {entry["what"] for entry in audited}
        status = await connection.fetchval(
            "select connection_status from notification_channels where id = $1", UUID(CHANNEL)
        )
        assert status == "disconnected"


async def test_threshold_that_the_other_application_writes_holds_within_seconds(adopted_dsn: str) -> None:
    async with zapwatch(adopted_dsn) as z, connected(adopted_dsn) as connection:
        token = await create_channel_token(connection, UUID(CHANNEL), revoke_others=False)
        z.hooks[CHANNEL] = f"http://zapwatch/webhooks/evolution_api/{token}"
        instance = Evolution("loja")
        await z.hear(CHANNEL, instance.update("open"), instance.update("connecting"))
        assert (await z.state(CHANNEL))["incident"] is None

        await connection.execute(
            "update notification_channels set metadata = $1 where id = $2",
            '{"heartbeat_threshold_minutes": 0.01, "theirs": [1]}',
            UUID(CHANNEL),
        )

        assert (await z.incident(CHANNEL))["kind"] == "connecting"


async def test_channel_that_the_other_application_deletes_has_its_incident_ended_untold(
    adopted_dsn: str,
) -> None:
    async with zapwatch(adopted_dsn) as z, connected(adopted_dsn) as connection:
        await connection.execute(
            "update notification_channels set is_active = false where id = $1", UUID(CHANNEL)
        )

        async def open_ones() -> list[asyncpg.Record]:
            return await connection.fetch(
                "select id from whatsapp_connection_incidents where resolved_at is null"
            )

        await z.until(open_ones, lambda rows: not rows)

        told = await connection.fetchval("select count(*) from zapwatch_alerts where kind = 'resolved'")
        assert told == 0


async def test_of_the_other_applications_notifications_only_ours_are_shown_and_read(adopted_dsn: str) -> None:
    async with zapwatch(adopted_dsn) as z, connected(adopted_dsn) as connection:
        await connection.execute("""
            insert into notifications (owner_id, tenant_id, type)
            select user_id, tenant_id, 'system_alert' from tenant_members where status = 'active'""")

        [ours] = (await z.get("/notifications"))["items"]
        answer = await z.client.post(f"/notifications/{ours['id']}/read")

        assert (ours["type"], ours["payload"], ours["read_at"]) == ("system_alert", None, None)
        assert answer.json()["read_at"] is not None
        read = "select type from notifications where read_at is not null"
        assert [row["type"] for row in await connection.fetch(read)] == ["system_alert"]
