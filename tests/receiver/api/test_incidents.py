"""Incidents over HTTP: found by every filter, shown whole, acknowledged once."""

from uuid import UUID, uuid4

import pytest

from db.connection.types import Connection
from tests.receiver.conftest import Api


async def test_incident_has_every_documented_field(api: Api, connection: Connection) -> None:
    channel = await api.channel()
    incident_id = await _incident(connection, channel["id"], "error", "2026-01-02T03:04:05Z")

    shown = (await api.client.get(f"/incidents/{incident_id}")).json()
    gateway = (await api.client.get(f"/channels/{channel['id']}/state")).json()["gateway"]

    assert shown.pop("opened_at").endswith("Z")
    assert shown == {
        "id": str(incident_id),
        "subject": "channel",
        "gateway_id": gateway["id"],
        "channel_name": None,
        "tenant_name": "default",
        "cause": None,
        "affected": None,
        "tenant_id": channel["tenant_id"],
        "channel_id": channel["id"],
        "provider": "evolution_api",
        "kind": "error",
        "last_state": None,
        "details": {"reason": "unreachable"},
        "started_at": "2026-01-02T03:04:05Z",
        "resolved_at": None,
        "duration_seconds": None,
        "notified_at": None,
        "notification_count": 0,
        "acknowledged_at": None,
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["open", "done", "old"]),
        ("status=all", ["open", "done", "old"]),
        ("status=open", ["open"]),
        ("status=resolved", ["done", "old"]),
        ("kind=error", ["done"]),
        ("since=2026-02-01T00:00:00Z", ["open", "done"]),
        ("since=2026-02-01T03:00:00%2B03:00", ["open", "done"]),
        ("since=2026-02-01T03:00:01+03:00", ["open"]),
        ("until=2026-02-01T00:00:00", ["old"]),
        ("since=2026-01-15&until=2026-02-15", ["done"]),
        ("channel_id=CHANNEL", ["open", "done"]),
        ("gateway_id=GATEWAY", ["old"]),
        ("tenant_id=00000000-0000-0000-0000-000000000001", []),
    ],
)
async def test_list_takes_filters(api: Api, connection: Connection, query: str, found: list[str]) -> None:
    one, two = await api.channel(), await api.channel(api_url="http://two.example")
    ids = {
        await _incident(connection, two["id"], "disconnected", "2026-01-01T00:00:00Z", resolved=True): "old",
        await _incident(connection, one["id"], "error", "2026-02-01T00:00:00Z", resolved=True): "done",
        await _incident(connection, one["id"], "connecting", "2026-03-01T00:00:00Z"): "open",
    }
    gateway = (await api.client.get("/gateways")).json()["items"][0]["id"]
    query = query.replace("CHANNEL", one["id"]).replace("GATEWAY", gateway)

    items = (await api.client.get(f"/incidents?{query}")).json()["items"]

    assert [ids[UUID(item["id"])] for item in items] == found


async def test_pages_show_every_incident_once_also_those_of_the_same_moment(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel()
    made = {
        str(await _incident(connection, channel["id"], "error", "2026-01-01T00:00:00.123456Z", resolved=True))
        for _ in range(5)
    }

    seen, cursor = [], ""
    while cursor is not None:
        page = (await api.client.get("/incidents", params={"limit": 2, "cursor": cursor})).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]

    assert len(seen) == 5
    assert set(seen) == made


@pytest.mark.parametrize(
    "query", ["status=x", "kind=open", "since=yesterday", "until=0000-01-01", "cursor=WzFd"]
)
async def test_bad_query_parameter_is_named(refusing: Api, query: str) -> None:
    answer = await refusing.client.get(f"/incidents?{query}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/" + query.partition("=")[0]


async def test_acknowledging_keeps_the_first_time_and_leaves_the_incident_open(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel()
    incident_id = await _incident(connection, channel["id"], "error", "2026-01-01T00:00:00Z")

    first = await api.client.post(f"/incidents/{incident_id}/ack")
    second = await api.client.post(f"/incidents/{incident_id}/ack")

    assert first.json()["acknowledged_at"] is not None
    assert second.json() == first.json()
    assert first.json()["resolved_at"] is None


async def test_an_incident_of_a_gateway_is_acknowledged_by_operators_alone(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel(api_url="http://evo.example", tenant_id=await api.tenant())
    incident_id = await connection.fetchval(
        "insert into zapwatch_gateway_incidents (gateway_id, cause, affected, started_at, opened_at)"
        " select id, 'unreachable', 7, '2026-01-01T00:00:00Z', '2026-01-01T00:01:00Z' from zapwatch_gateways"
        " returning id"
    )
    path = f"/incidents/{incident_id}/ack"

    async with api.operator_of(channel["tenant_id"]) as tenants:
        refused = await tenants.post(path)
    untouched = (await api.client.get("/gateways")).json()["items"][0]
    first = await api.client.post(path)
    second = await api.client.post(path)
    gateway = (await api.client.get("/gateways")).json()["items"][0]

    assert refused.status_code == 404
    assert untouched["incident"]["acknowledged_at"] is None
    assert first.status_code == 200
    shown = first.json()
    assert shown.pop("acknowledged_at") == gateway["incident"]["acknowledged_at"] is not None
    assert shown == {
        "id": str(incident_id),
        "gateway_id": gateway["id"],
        "provider": "evolution_api",
        "subject": "gateway",
        "tenant_id": None,
        "channel_id": None,
        "kind": "unreachable",
        "last_state": None,
        "notified_at": None,
        "notification_count": 0,
        "channel_name": None,
        "tenant_name": None,
        "cause": "unreachable",
        "affected": 7,
        "details": {},
        "started_at": "2026-01-01T00:00:00Z",
        "resolved_at": None,
        "duration_seconds": None,
        "opened_at": "2026-01-01T00:01:00Z",
    }
    assert second.json() == first.json()


async def test_incidents_of_a_deleted_channel_stay_in_the_history(api: Api, connection: Connection) -> None:
    channel = await api.channel()
    incident_id = await _incident(connection, channel["id"], "error", "2026-01-01T00:00:00Z", resolved=True)
    await api.client.delete(f"/channels/{channel['id']}")

    items = (await api.client.get("/incidents")).json()["items"]

    assert [item["id"] for item in items] == [str(incident_id)]


async def test_unknown_incident_is_404(refusing: Api) -> None:
    assert (await refusing.client.get(f"/incidents/{uuid4()}")).status_code == 404
    assert (await refusing.client.post("/incidents/x/ack")).status_code == 404


async def _incident(
    connection: Connection, channel_id: str, kind: str, started_at: str, *, resolved: bool = False
) -> UUID:
    incident_id: UUID = await connection.fetchval(
        "insert into whatsapp_connection_incidents"
        " (tenant_id, channel_id, provider, kind, details, started_at, resolved_at)"
        ' select tenant_id, id, provider, $2, \'{"reason": "unreachable"}\', $3::text::timestamptz,'
        " case when $4 then $3::text::timestamptz end from notification_channels where id = $1 returning id",
        UUID(channel_id),
        kind,
        started_at,
        resolved,
    )
    return incident_id
