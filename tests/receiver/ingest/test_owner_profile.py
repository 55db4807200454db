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
OTHER_JID = "5521988880000@s.whatsapp.net"
ROW_VERSION = "select xmin::text from notification_channels"
"""Another one after each write of the only channel."""


def presence(instance: Evolution, owner: str) -> dict[str, Any]:
    """Return a webhook of live traffic that names the owner of the session."""
    return instance.event("presence.update", {"id": OTHER_JID, "presences": {}}, sender=owner)


async def flushed(z: Zapwatch) -> None:
    """Return once the traffic that was noted is written."""
    await z.app.live_traffic.flush()


async def clock_learnt(z: Zapwatch, connection: Connection, channel: str, instance: Evolution) -> None:
    """Have the gateway's clock learnt: while its row is busy it isn't."""

    async def offset() -> Any:
        await z.hear(channel, instance.update("open"))
        return await connection.fetchval("select clock -> 'offset' from zapwatch_gateways")

    await z.until(offset, lambda it: it is not None)
    z.app.tokens.forget(UUID(channel))


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


async def test_table_of_others_is_written_only_when_something_of_it_changes(
    dsn: str, connection: Connection
) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, instance.update("open", wuid=JID, profileName="Loja"))
        before = await connection.fetchval(ROW_VERSION)

        await z.hear(channel, instance.update("open", wuid=JID, profileName="Loja"), presence(instance, JID))
        await flushed(z)

        assert await connection.fetchval(ROW_VERSION) == before


async def test_owner_who_is_told_once_the_channel_is_open_already_is_shown(
    dsn: str, connection: Connection
) -> None:
    """As when a probe found it open before the webhook came."""
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, instance.update("open"))
        before = await written(connection, channel)

        await z.hear(channel, instance.update("open", wuid=JID, profileName="Loja"))

        assert before == (None, None)
        assert await written(connection, channel) == ("5511999990000", "Loja")


LIVE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "evolution_api": (
        Evolution().update("open"),
        Evolution().event("presence.update", {"id": OTHER_JID, "presences": {}}, sender=JID),
    ),
    "wapi": (
        {"event": "webhookConnected", "instanceId": "loja-01", "connected": True, "connectedPhone": "lid"},
        {
            "event": "webhookReceived",
            "instanceId": "loja-01",
            "connectedPhone": "5511999990000",
            "fromMe": False,
            "sender": {"id": "5521988880000"},
        },
    ),
    "waha": (
        {"event": "session.status", "session": "loja-01", "payload": {"status": "WORKING"}},
        {
            "event": "message",
            "session": "loja-01",
            "me": {"id": "5511999990000@c.us", "pushName": "~"},
            "payload": {"from": "5521988880000@c.us"},
        },
    ),
}
"""For each provider: a webhook that opens a channel and tells no number, and live traffic that does."""


@pytest.mark.parametrize("provider", LIVE)
async def test_owner_of_an_open_channel_is_learnt_from_live_traffic(
    dsn: str, connection: Connection, provider: str
) -> None:
    async with zapwatch(dsn) as z:
        opening, traffic = LIVE[provider]
        channel = await z.channel("loja-01", provider, api_url="http://gateway.example")
        await z.hear(channel, opening)
        before = await shown(z, channel)

        await z.hear(channel, traffic)

        after = await z.until(lambda: shown(z, channel), lambda it: it["phone_number"])
        assert (before["state"], before["phone_number"]) == ("open", None)
        assert after["phone_number"] == "5511999990000"
        assert await written(connection, channel) == ("5511999990000", None)


async def test_waha_tells_whose_number_it_is(dsn: str, connection: Connection) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel(provider="waha", api_url="http://waha.example")
        me = {"id": "5511999990000@c.us", "pushName": "Loja"}

        await z.hear(
            channel,
            {"event": "session.status", "session": "loja-01", "me": me, "payload": {"status": "WORKING"}},
        )

        assert await written(connection, channel) == ("5511999990000", "Loja")


async def test_live_traffic_of_another_number_is_that_of_a_new_owner(
    dsn: str, connection: Connection
) -> None:
    """As when nobody told that the channel was paired anew."""
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, instance.update("open", wuid=JID))

        await z.hear(channel, presence(instance, OTHER_JID))
        await flushed(z)

        assert await written(connection, channel) == ("5521988880000", None)


async def test_late_traffic_of_an_earlier_owner_replaces_no_later_one(
    dsn: str, connection: Connection
) -> None:
    async with zapwatch(dsn) as z, zapwatch(dsn) as other:
        channel, instance = await z.channel(), Evolution()
        other.hooks = z.hooks
        await clock_learnt(z, connection, channel, instance)
        late = presence(instance, OTHER_JID)
        late_open = instance.update("open", wuid=OTHER_JID)
        await z.hear(channel, instance.update("close", 401), instance.update("open", wuid=JID))

        for service in (z, other):
            await service.hear(channel, late)
            await flushed(service)
        await other.hear(channel, late_open)

        assert (await z.state(channel))["state"] == "open"
        assert await written(connection, channel) == ("5511999990000", None)


async def test_late_traffic_fills_in_a_number_that_is_missing(dsn: str, connection: Connection) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await clock_learnt(z, connection, channel, instance)
        late = presence(instance, JID)
        await z.hear(channel, instance.update("open"), late)
        await flushed(z)

        assert await written(connection, channel) == ("5511999990000", None)


async def test_what_another_application_wrote_is_not_fought_for(dsn: str, connection: Connection) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, instance.update("open"), presence(instance, JID))
        await flushed(z)
        await connection.execute("update notification_channels set phone_number = 'ours'")

        await z.hear(channel, presence(instance, JID), presence(instance, JID))
        await flushed(z)

        assert await written(connection, channel) == ("ours", None)


async def test_service_that_starts_anew_and_another_one_write_what_is_new_and_nothing_else(
    dsn: str, connection: Connection
) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, instance.update("open", profileName="Loja"), presence(instance, JID))
        await flushed(z)
        hooks, before = z.hooks, await connection.fetchval(ROW_VERSION)

    async with zapwatch(dsn) as one, zapwatch(dsn) as other:
        one.hooks = other.hooks = hooks
        for service in (one, other):
            await service.hear(channel, presence(instance, JID))
            await flushed(service)
        same = await connection.fetchval(ROW_VERSION)
        await other.hear(channel, presence(instance, OTHER_JID))
        await flushed(other)
        await one.hear(channel, presence(instance, OTHER_JID))
        await flushed(one)

    assert same == before
    assert await written(connection, channel) == ("5521988880000", "Loja")


async def test_service_that_ends_writes_the_owners_that_it_heard_of(dsn: str, connection: Connection) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()

        await z.hear(channel, instance.update("open"), presence(instance, JID))

    assert await written(connection, channel) == ("5511999990000", None)


async def test_row_that_another_application_holds_delays_no_other_and_is_written_with_later_traffic(
    dsn: str, connection: Connection, admin: Connection
) -> None:
    async with zapwatch(dsn) as z:
        held, instance = await z.channel("held"), Evolution("held")
        free, other = await z.channel("free"), Evolution("free")
        await z.hear(held, instance.update("open"))
        await z.hear(free, other.update("open"))
        before = await shown(z, free)

        async with admin.transaction():
            await admin.execute("select from notification_channels where id = $1 for update", UUID(held))
            await z.hear(held, presence(instance, JID))
            await z.hear(free, other.event("presence.update", {"id": OTHER_JID, "presences": {}}))
            await flushed(z)
            meanwhile = await shown(z, free)
        unwritten = await written(connection, held)
        await z.hear(held, presence(instance, JID))
        await flushed(z)

        assert time(meanwhile["last_event_at"]) > time(before["last_event_at"])
        assert unwritten == (None, None)
        assert await written(connection, held) == ("5511999990000", None)


async def test_number_that_is_refused_costs_no_other_channels_owner(
    dsn: str, connection: Connection, admin: Connection
) -> None:
    async with zapwatch(dsn) as z:
        await admin.execute("create unique index on notification_channels (phone_number)")
        channels = {name: await z.channel(name) for name in ("one", "two", "three")}
        owners = {"one": JID, "two": JID, "three": OTHER_JID}
        for name, channel in channels.items():
            await z.hear(channel, Evolution(name).update("open"))

        for name, channel in channels.items():
            await z.hear(channel, presence(Evolution(name), owners[name]))
        await flushed(z)

        phones = [(await written(connection, channel))[0] for channel in channels.values()]
        assert sorted(phones[:2], key=str) == ["5511999990000", None]
        assert phones[2] == "5521988880000"


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
