"""Whose number a channel is, since when it was connected, and what is wrong: as an operator is shown it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from db.connection.types import Connection
from receiver.i18n.reasons import reason_text
from statemachine.model import Reason
from tests.factories import Evolution
from tests.support.service import Zapwatch, time, zapwatch
from tests.support.story import story

UNHURRIED: dict[str, Any] = {"stale_after": timedelta(hours=1), "retry_after": timedelta(hours=1)}
"""Settings under which no probe finds out before a webhook tells."""
JID = "5511999990000@s.whatsapp.net"


async def shown(z: Zapwatch, channel: str) -> Any:
    """Return all that is shown of a channel."""
    return await z.get(f"/channels/{channel}")


async def written(connection: Connection, channel: str) -> tuple[str | None, str | None]:
    """Return the phone and the name that applications beside us see."""
    row = await connection.fetchrow(
        "select phone_number, profile_name from notification_channels where id = $1", UUID(channel)
    )
    assert row is not None
    return row["phone_number"], row["profile_name"]


async def test_evolution_tells_whose_number_it_is(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-centro", "close")
        channel = await told.watch(host, instance, state="disconnected")
        before = await shown(told.z, channel)
        began = datetime.now(UTC)

        instance.connect()

        await told.becomes(channel, "open")
        after = await told.z.until(lambda: shown(told.z, channel), lambda it: it["phone_number"])
        assert (before["phone_number"], before["last_connected_at"]) == (None, None)
        assert before["error_message"] is not None
        assert after["phone_number"] == instance.jid.partition("@")[0]
        assert after["profile_name"] == "Loja Centro"
        assert after["error_message"] is None
        assert time(after["last_connected_at"]) > began - timedelta(seconds=5)


async def test_wapi_tells_whose_number_it_is(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.wapi()
        instance = host.add(state="close")
        channel = await told.watch(host, instance, state="disconnected")

        instance.connect()

        await told.becomes(channel, "open")
        assert (await shown(told.z, channel))["phone_number"] == instance.phone


@pytest.mark.parametrize("locale", ["en", "pt-BR"])
async def test_what_is_wrong_is_said_in_the_tenants_language_until_the_channel_is_open(
    dsn: str, locale: str
) -> None:
    async with zapwatch(dsn) as z:
        tenant = (await z.client.post("/tenants", json={"name": "Rede", "locale": locale})).json()["id"]
        channel, instance = await z.channel(tenant_id=tenant), Evolution()
        await z.hear(channel, instance.update("open"))
        connected_at = (await shown(z, channel))["last_connected_at"]

        await z.hear(channel, instance.update("close", 401))
        lost = await shown(z, channel)
        await z.hear(channel, instance.update("open"))

        assert lost["error_message"] == reason_text(Reason.LOGGED_OUT, locale)
        assert lost["last_connected_at"] == connected_at
        again = await shown(z, channel)
        assert again["error_message"] is None
        assert time(again["last_connected_at"]) > time(connected_at)


async def test_what_a_gateway_does_not_tell_stays_as_it_is(dsn: str, connection: Connection) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, instance.update("open", wuid=JID, profileName="Loja"))

        await z.hear(channel, instance.update("connecting"), instance.update("open"))

        assert await written(connection, channel) == ("5511999990000", "Loja")


async def test_number_that_somebody_writes_otherwise_stays_and_another_one_does_not(
    dsn: str, connection: Connection
) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await connection.execute("update notification_channels set phone_number = '+55 (11) 99999-0000'")

        await z.hear(channel, instance.update("open", wuid=JID, profileName="Loja"))
        same = await written(connection, channel)
        await z.hear(channel, instance.update("connecting"), instance.update("open", wuid=f"1{JID}"))

        assert same == ("+55 (11) 99999-0000", "Loja")
        assert await written(connection, channel) == ("15511999990000", "Loja")


async def test_table_of_others_is_written_only_when_a_state_changes(dsn: str, connection: Connection) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, instance.update("open", wuid=JID, profileName="Loja"))
        version = "select xmin::text from notification_channels"
        before = await connection.fetchval(version)

        await z.hear(channel, instance.update("open", wuid=f"1{JID}", profileName="Outra"))

        assert await connection.fetchval(version) == before


@pytest.mark.parametrize(
    ("wuid", "profile", "kept"),
    [
        ("5511999990000:12@s.whatsapp.net", "Loja", ("5511999990000", "Loja")),
        (5511999990000, None, ("5511999990000", None)),
        ("000000000000001@lid", "x", (None, "x")),
        ("1" * 100_000, "L" * 100_000, (None, "L" * 64)),
        ("٥" * 11, "\ud83d", (None, "?")),
        ("5511\u0000999990000", "Lo\u0000ja", (None, "Lo?ja")),
        ({"a": [JID]}, ["Loja"], (None, None)),
        (True, False, (None, None)),
        ("", "", (None, None)),
    ],
)
async def test_odd_owners_cost_no_event(
    dsn: str, connection: Connection, wuid: object, profile: object, kept: tuple[str | None, str | None]
) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()
        body = Evolution().update("open", wuid=wuid, profileName=profile)

        assert await z.post(channel, json.dumps(body).encode()) == 204

        assert (await z.state(channel))["state"] == "open"
        assert await written(connection, channel) == kept


@pytest.mark.parametrize(
    "narrow",
    [
        "alter column phone_number type varchar(8), alter column profile_name type varchar(2)",
        "alter column error_message type varchar(20)",
        "alter column phone_number type bigint using null",
        "add constraint ours check (phone_number ~ '^[+]')",
    ],
)
async def test_narrow_table_of_another_application_costs_no_event(
    dsn: str, admin: Connection, narrow: str
) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await admin.execute(f"alter table notification_channels {narrow}")

        await z.hear(channel, instance.update("open", wuid=JID, profileName="Loja"))
        assert (await z.state(channel))["state"] == "open"
        await z.hear(channel, instance.update("close", 401))

        assert await z.stands(channel) == ("disconnected", "logged_out", True)
        row = await admin.fetchrow("select connection_status, error_message from notification_channels")
        assert row is not None
        assert row["connection_status"] == "disconnected"
        assert reason_text(Reason.LOGGED_OUT, None).startswith(row["error_message"])
