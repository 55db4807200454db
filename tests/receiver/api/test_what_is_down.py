"""What is down, over HTTP: channels, their gateways, the age of their evidence, and incidents of both."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from db.connection.types import Connection
from db.queries import sql
from tests.receiver.conftest import Api

CONNECTED = """'{"has_been_open": true}'"""


async def test_a_channel_shows_its_gateway_and_how_old_its_evidence_is(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel(api_url="http://evo.example")
    await connection.execute("update zapwatch_states set state = 'open', fresh_at = now() - interval '14 s'")
    await connection.execute("update zapwatch_gateways set name = 'Main', since = '2026-01-01T00:00:00Z'")

    shown = (await api.client.get(f"/channels/{channel['id']}/state")).json()

    assert shown["evidence_age_seconds"] in {14, 15}
    gateway = shown["gateway"]
    assert UUID(gateway.pop("id"))
    assert gateway == {
        "name": "Main",
        "state": "unknown",
        "since": "2026-01-01T00:00:00Z",
        "incident_id": None,
    }


async def test_evidence_by_a_gateways_silence_is_as_old_as_its_newest_failed_trial(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel(api_url="http://evo.example")
    await connection.execute(
        "update zapwatch_states set state = 'error', reason = 'gateway_unreachable',"
        " fresh_at = now() - interval '3 hours'"
    )
    await connection.execute(
        "update zapwatch_gateways set state = 'down', failed_at = now() - interval '30 s'"
    )
    incident_id = await _gateway_incident(connection, "unreachable")

    silent = (await api.client.get(f"/channels/{channel['id']}/state")).json()
    await connection.execute("update zapwatch_states set reason = 'unreachable'")
    alone = (await api.client.get(f"/channels/{channel['id']}/state")).json()

    assert silent["evidence_age_seconds"] in {30, 31}
    assert (silent["gateway"]["state"], silent["gateway"]["incident_id"]) == ("down", incident_id)
    assert alone["evidence_age_seconds"] in {10800, 10801}


async def test_down_are_channels_that_were_connected_and_are_watched(
    api: Api, connection: Connection
) -> None:
    states = {
        "open": ("open", CONNECTED),
        "unknown": ("unknown", CONNECTED),
        "never": ("disconnected/unpaired", "'{}'"),
        "dropped": ("disconnected/dropped", CONNECTED),
        "error": ("error", CONNECTED),
        "paused": ("error", CONNECTED),
        "inactive": ("error", CONNECTED),
        "removed": ("error", CONNECTED),
    }
    for name, (state, memory) in states.items():
        channel = await api.channel(name, api_url="http://evo.example")
        await connection.execute(
            f"update zapwatch_states set state = $2, memory = {memory} where channel_id = $1",
            channel["id"],
            state,
        )
        if name == "paused":
            await api.client.post(f"/channels/{channel['id']}/pause")
        if name == "inactive":
            await connection.execute(
                "update notification_channels set is_active = false where id = $1", channel["id"]
            )
        if name == "removed":
            await api.client.delete(f"/channels/{channel['id']}")

    assert await _names(api, "down=true") == {"dropped", "error"}
    assert await _names(api, "down=true&state=error") == {"error"}
    assert await _names(api, "never_connected=true") == {"never"}
    assert await _names(api, "state=open&state=unknown") == {"open", "unknown"}
    [gateway] = (await api.client.get("/gateways")).json()["items"]
    assert gateway["never_connected"] == 1
    assert gateway["channels"] == {"open": 1, "unknown": 1, "disconnected": 2, "error": 3}


@pytest.mark.parametrize(
    ("path", "pointers"),
    [
        ("/channels?dwon=true", ["/dwon"]),
        ("/channels?q=a&q=b", ["/q"]),
        ("/channels?state=open&state=", []),
        ("/channels?down=yes", ["/down"]),
        ("/channels?state=open&state=x", ["/state"]),
        ("/incidents?subject=tenant", ["/subject"]),
        ("/incidents?subject=channel&subject=gateway&x=1", ["/subject", "/x"]),
        ("/tenants?x=", ["/x"]),
    ],
)
async def test_parameters_that_a_call_does_not_have_are_refused(
    refusing: Api, path: str, pointers: list[str]
) -> None:
    answer = await refusing.client.get(path)

    errors = answer.json().get("errors", [])
    assert (answer.status_code == 422) == bool(pointers)
    assert [error["pointer"] for error in errors] == pointers


async def test_a_refused_parameter_is_answered_with_those_that_there_are(refusing: Api) -> None:
    answer = await refusing.client.get("/channels?dwon=true")

    assert "never_connected" in answer.json()["errors"][0]["detail"]


async def test_incidents_of_gateways_and_channels_are_one_list(api: Api, connection: Connection) -> None:
    channel = await api.channel(api_url="http://evo.example", name="Loja")
    ids = {
        await _channel_incident(connection, channel["id"], 1): "c1",
        await _gateway_incident(connection, "unreachable", 2, resolved=True): "g2",
        await _channel_incident(connection, channel["id"], 3): "c3",
        await _gateway_incident(connection, "mass_loss", 3): "g3",
    }
    gateway = (await api.client.get("/gateways")).json()["items"][0]["id"]

    async def found(query: str, client: Any = api.client) -> set[str]:
        answer = await client.get(f"/incidents?{query}")
        assert answer.status_code == 200, answer.text
        return {ids[item["id"]] for item in answer.json()["items"]}

    assert await found("") == {"c1", "g2", "c3", "g3"}
    assert await found("subject=gateway") == {"g2", "g3"}
    assert await found("subject=channel") == {"c1", "c3"}
    assert await found(f"gateway_id={gateway}") == {"c1", "g2", "c3", "g3"}
    assert await found(f"gateway_id={uuid4()}") == set()
    assert await found("status=open") == {"g3"}
    assert await found("kind=error") == {"c1", "c3"}
    assert await found(f"channel_id={channel['id']}") == {"c1", "c3"}
    assert await found(f"tenant_id={channel['tenant_id']}") == {"c1", "c3"}
    assert await found(f"tenant_id={channel['tenant_id']}&subject=gateway") == set()
    async with api.operator_of(channel["tenant_id"]) as tenants:
        assert await found("", tenants) == {"c1", "c3"}
        assert await found("subject=gateway", tenants) == set()
        hidden = next(id for id, name in ids.items() if name == "g2")
        assert (await tenants.get(f"/incidents/{hidden}")).status_code == 404


async def test_pages_over_both_show_every_incident_once_in_one_order(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel(api_url="http://evo.example")
    for day in (1, 2, 3):
        await _channel_incident(connection, channel["id"], day)
        await _gateway_incident(connection, "unreachable", day, resolved=True)
        await _gateway_incident(connection, "mass_loss", day, resolved=True)

    whole = (await api.client.get("/incidents")).json()["items"]
    seen, cursor = [], ""
    while cursor is not None:
        page = (await api.client.get("/incidents", params={"limit": 2, "cursor": cursor})).json()
        seen += page["items"]
        cursor = page["next"]

    assert len(seen) == 9
    assert seen == whole
    assert [it["started_at"] for it in seen] == sorted((it["started_at"] for it in seen), reverse=True)


async def test_an_incident_of_a_gateway_is_shown_and_acknowledged(api: Api, connection: Connection) -> None:
    channel = await api.channel(api_url="http://evo.example")
    incident_id = await _gateway_incident(connection, "mass_loss")

    acknowledged = (await api.client.post(f"/incidents/{incident_id}/ack")).json()
    shown = (await api.client.get(f"/incidents/{incident_id}")).json()

    assert shown == acknowledged
    assert shown.pop("acknowledged_at") is not None
    assert shown == {
        "id": incident_id,
        "subject": "gateway",
        "tenant_id": None,
        "channel_id": None,
        "gateway_id": (await api.client.get(f"/channels/{channel['id']}")).json()["gateway_id"],
        "provider": "evolution_api",
        "kind": "mass_loss",
        "cause": "mass_loss",
        "affected": 7,
        "last_state": None,
        "details": {"webhooks_arrive": True},
        "started_at": "2026-01-01T00:00:00Z",
        "resolved_at": None,
        "duration_seconds": None,
        "opened_at": "2026-01-01T00:01:00Z",
        "notified_at": None,
        "notification_count": 0,
        "channel_name": None,
        "tenant_name": None,
    }


async def test_few_channels_of_many_that_are_down_are_found_by_index(connection: Connection) -> None:
    await connection.execute(_MANY_CHANNELS)
    filters = (None, None, None, False, None, True, False, None, 51)

    plan = await connection.fetch("explain " + sql.list_channel_ids, *filters)

    assert "idx_zapwatch_states_down" in str(plan)


async def test_the_newest_incidents_of_many_are_found_by_index(connection: Connection) -> None:
    await connection.execute(_MANY_CHANNELS)
    await connection.execute(_MANY_INCIDENTS)
    filters = (*[None] * 9, 51, True, True)

    rows = await connection.fetch("explain " + sql.list_incidents, *filters)
    plan = "\n".join(row["QUERY PLAN"] for row in rows)

    assert "idx_wa_incidents_started" in plan
    assert "Seq Scan on whatsapp_connection_incidents" not in plan


_MANY_CHANNELS = """
insert into tenants (id, name) values ('00000000-0000-0000-0000-000000000001', 'many');
insert into notification_channels (tenant_id, provider, connection_status)
select '00000000-0000-0000-0000-000000000001', 'evolution_api', 'unknown' from generate_series(1, 20000);
insert into zapwatch_channels (channel_id, tenant_id, provider, instance)
select id, tenant_id, 'evolution_api', id::text from notification_channels;
insert into zapwatch_states (channel_id, tenant_id, state, memory)
select id, tenant_id, 'open', '{"has_been_open": true}' from notification_channels
on conflict (channel_id) do update set state = excluded.state, memory = excluded.memory;
with ten as (select channel_id from zapwatch_states limit 10)
update zapwatch_states s set state = 'error' from ten where s.channel_id = ten.channel_id;
with ten as (select channel_id from zapwatch_states where state = 'open' limit 10)
update zapwatch_states s set memory = '{}' from ten where s.channel_id = ten.channel_id;
analyze notification_channels, zapwatch_channels, zapwatch_states;
"""
_MANY_INCIDENTS = """
insert into whatsapp_connection_incidents (tenant_id, channel_id, provider, kind, started_at, resolved_at)
select tenant_id, channel_id, 'evolution_api', 'error', now() - random() * interval '90 days', now()
from zapwatch_channels;
analyze whatsapp_connection_incidents;
"""


async def _names(api: Api, query: str) -> set[str]:
    items = (await api.client.get(f"/channels?{query}")).json()["items"]
    return {item["instance"] for item in items}


async def _channel_incident(connection: Connection, channel_id: str, day: int) -> str:
    return str(
        await connection.fetchval(
            "insert into whatsapp_connection_incidents"
            " (tenant_id, channel_id, provider, kind, started_at, resolved_at)"
            " select tenant_id, channel_id, provider, 'error', $2::text::timestamptz, now()"
            " from zapwatch_channels where channel_id = $1 returning id",
            channel_id,
            f"2026-01-0{day}T00:00:00Z",
        )
    )


async def _gateway_incident(
    connection: Connection, cause: str, day: int = 1, *, resolved: bool = False
) -> str:
    return str(
        await connection.fetchval(
            "insert into zapwatch_gateway_incidents"
            " (gateway_id, cause, affected, details, started_at, opened_at, resolved_at)"
            """ select id, $1, 7, '{"webhooks_arrive": true}', $2::text::timestamptz,"""
            " $2::text::timestamptz + interval '1 min', case when $3 then now() end"
            " from zapwatch_gateways returning id",
            cause,
            f"2026-01-0{day}T00:00:00Z",
            resolved,
        )
    )
