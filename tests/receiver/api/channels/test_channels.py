"""Channels over HTTP: registered once, shown as promised, changed, paused, deleted."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from db.connection.types import Connection
from db.registry.tokens import hash_token
from db.vault import Vault
from receiver.http.auth import Tokens
from tests.receiver.conftest import KEY, Api


async def test_registered_channel_is_shown_with_a_webhook_address_of_its_own(api: Api) -> None:
    body = {"provider": "evolution_api", "instance": "loja-01", "name": "Loja Centro"}

    answer = await api.client.post("/channels", json=body)

    shown = answer.json()
    token = shown["webhook_url"].removeprefix("https://watch.example/webhooks/evolution_api/")
    target = await Tokens(api.pool).resolve("evolution_api", token)
    assert answer.status_code == 201
    assert shown["id"] == shown["channel_id"]
    assert answer.headers["Location"] == f"/channels/{shown['id']}"
    assert target is not None
    assert (str(target.channel_id), target.instance) == (shown["id"], "loja-01")


async def test_state_object_of_a_new_channel_has_every_documented_field(api: Api) -> None:
    channel = await api.channel(name="Loja Centro")

    shown = (await api.client.get(f"/channels/{channel['id']}/state")).json()

    assert shown == {
        "channel_id": channel["id"],
        "tenant_id": channel["tenant_id"],
        "provider": "evolution_api",
        "instance": "loja-01",
        "name": "Loja Centro",
        "state": "unknown",
        "since": None,
        "reason": None,
        "first_unhealthy_at": None,
        "last_event_at": None,
        "last_health_check": None,
        "next_check_at": None,
        "incident": None,
        "evidence_age_seconds": None,
        "never_connected": True,
        "gateway": shown["gateway"],
        "monitoring": {
            "alerts_enabled": True,
            "threshold_minutes": 5,
            "paused": False,
            "configured": False,
        },
    }


async def test_unhealthy_channel_shows_reason_incident_and_times(api: Api, connection: Connection) -> None:
    channel = await api.channel(api_url="http://evo:8080", api_key="k")
    await connection.execute(
        "update zapwatch_states set state = 'disconnected/unpaired', reason = 'logged_out', status = 401,"
        " since = '2026-01-02T03:04:05Z', probed_at = '2026-01-02T03:04:06.5Z' where channel_id = $1",
        UUID(channel["id"]),
    )
    incident_id = await _incident(connection, channel["id"], "now() - interval '12 seconds'")

    shown = (await api.client.get(f"/channels/{channel['id']}/state")).json()

    assert shown["state"] == "disconnected"
    assert shown["since"] == "2026-01-02T03:04:05Z"
    assert shown["last_health_check"] == "2026-01-02T03:04:06.500000Z"
    assert shown["next_check_at"].endswith("Z")
    assert shown["reason"] == {
        "code": "logged_out",
        "terminal": True,
        "text": "O aparelho foi desconectado no WhatsApp do celular. "
        "Leia um novo QR code para conectar de novo.",
        "status": 401,
    }
    assert shown["incident"]["id"] == str(incident_id)
    assert shown["incident"]["duration_seconds"] in {12, 13}
    assert shown["monitoring"]["configured"] is True


async def test_reason_is_told_in_the_language_of_the_tenant(api: Api, connection: Connection) -> None:
    tenant = await api.tenant(locale="en")
    channel = await api.channel(tenant_id=tenant)
    await connection.execute("update zapwatch_states set state = 'qr_pending', reason = 'scan_needed'")

    shown = (await api.client.get(f"/channels/{channel['id']}/state")).json()

    assert shown["reason"]["text"].startswith("The channel has lost its session")
    assert shown["reason"]["terminal"] is True


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("http://EVO.example:80/", "http://evo.example"),
        ("https://evo.example:443/api/", "HTTPS://evo.example/api"),
        (None, None),
        ("", None),
    ],
)
async def test_same_instance_of_the_same_gateway_is_a_conflict_naming_the_first(
    api: Api, first: str | None, second: str | None
) -> None:
    channel = await api.channel(api_url=first)

    answer = await api.client.post(
        "/channels", json={"provider": "evolution_api", "instance": "loja-01", "api_url": second}
    )

    assert answer.status_code == 409
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["id"] == channel["id"]


async def test_same_instance_elsewhere_is_another_channel(api: Api) -> None:
    first = await api.channel(api_url="http://one.example")

    second = await api.channel(api_url="http://two.example")

    assert first["id"] != second["id"]


async def test_registrations_at_the_same_moment_make_one_channel_and_one_tenant(api: Api) -> None:
    body = {"provider": "wapi", "instance": "ABC"}

    answers = await asyncio.gather(*(api.client.post("/channels", json=body) for _ in range(8)))

    tenants = (await api.client.get("/tenants")).json()["items"]
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert [tenant["name"] for tenant in tenants] == ["default"]


async def test_wapi_address_defaults_to_its_own_with_version(api: Api) -> None:
    channel = await api.channel(provider="wapi", instance="ABC", api_key="k")

    whole = (await api.client.get(f"/channels/{channel['id']}")).json()

    assert whole["api_url"] == "https://api.w-api.app/v1"
    assert whole["monitoring"]["configured"] is True
    assert whole["next_check_at"] is not None


async def test_key_is_kept_sealed_for_its_channel_and_never_shown(api: Api, connection: Connection) -> None:
    channel = await api.channel(api_url="http://evo.example", api_key="s3cret-key")

    whole = await api.client.get(f"/channels/{channel['id']}")

    sealed = await connection.fetchval("select api_key from zapwatch_channels")
    assert b"s3cret-key" not in sealed
    assert Vault([KEY]).open(sealed, f"channel:{channel['id']}") == b"s3cret-key"
    assert "s3cret-key" not in whole.text


async def test_token_is_kept_as_its_hash_only(api: Api, connection: Connection) -> None:
    channel = await api.channel()

    token = channel["webhook_url"].rpartition("/")[2]

    hashes = {row["hash"] for row in await connection.fetch("select hash from zapwatch_tokens")}
    assert hash_token(token) in hashes
    assert token.encode() not in hashes


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/provider"),
        ({"provider": "telegram", "instance": "a"}, "/provider"),
        ({"provider": "wapi", "instance": ""}, "/instance"),
        ({"provider": "wapi", "instance": " "}, "/instance"),
        ({"provider": "wapi", "instance": 7}, "/instance"),
        ({"provider": "wapi", "instance": "a\0b"}, "/instance"),
        ({"provider": "wapi", "instance": "a", "color": 1}, "/color"),
        ({"provider": "wapi", "instance": "a", "tenant_id": "x"}, "/tenant_id"),
        ({"provider": "wapi", "instance": "a", "tenant_id": str(uuid4())}, "/tenant_id"),
        ({"provider": "wapi", "instance": "a", "api_url": "ftp://x"}, "/api_url"),
        ({"provider": "wapi", "instance": "a", "api_url": "http://[x"}, "/api_url"),
        ({"provider": "wapi", "instance": "a", "api_url": "http://u:p@x"}, "/api_url"),
        ({"provider": "wapi", "instance": "a", "metadata": []}, "/metadata"),
        ({"provider": "wapi", "instance": "a", "metadata": {"k/~": "\0"}}, "/metadata/k~1~0"),
        (
            {"provider": "wapi", "instance": "a", "metadata": {"heartbeat_threshold_minutes": "5"}},
            "/metadata/heartbeat_threshold_minutes",
        ),
        (
            {"provider": "wapi", "instance": "a", "metadata": {"heartbeat_threshold_minutes": 1441}},
            "/metadata/heartbeat_threshold_minutes",
        ),
        (
            {"provider": "wapi", "instance": "a", "metadata": {"heartbeat_threshold_minutes": True}},
            "/metadata/heartbeat_threshold_minutes",
        ),
        (
            {"provider": "wapi", "instance": "a", "metadata": {"alerts_enabled": 1}},
            "/metadata/alerts_enabled",
        ),
    ],
)
async def test_bad_field_is_named_by_its_pointer(
    refusing: Api, body: dict[str, object], pointer: str
) -> None:
    answer = await refusing.client.post("/channels", json=body)

    problem = answer.json()
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["status"] == 422
    assert pointer in [error["pointer"] for error in problem["errors"]]


async def test_all_bad_fields_are_named_at_once(refusing: Api) -> None:
    body = {"provider": "x", "instance": 1, "metadata": {"auto_recovery": "no"}, "z": 1}

    errors = (await refusing.client.post("/channels", json=body)).json()["errors"]

    pointers = {error["pointer"] for error in errors}
    assert pointers == {"/provider", "/instance", "/metadata/auto_recovery", "/z"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", ""),
        (b"{", ""),
        (b"[]", ""),
        (b"null", ""),
        (b"NaN", ""),
        (b'{"a": 1e999}', ""),
        (b"\xff\xfe", ""),
        (b'{"provider": "wapi", "instance": "\\ud800"}', "/instance"),
        (b'{"provider": "wapi", "\\ud800": 1}', ""),
        (b'{"metadata": ' + b'{"a":' * 900 + b"1" + b"}" * 901, "/metadata"),
        (b'{"metadata": ' + b"[" * 100_000, ""),
    ],
)
async def test_body_that_is_no_json_or_cannot_be_kept_is_422(
    refusing: Api, body: bytes, pointer: str
) -> None:
    answer = await refusing.client.post("/channels", content=body)

    assert answer.status_code == 422
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]


async def test_body_over_a_megabyte_is_413(refusing: Api) -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 65_536

    announced = await refusing.client.post("/channels", content=b" " * 1_048_577)
    streamed = await refusing.client.post("/channels", content=unannounced())

    assert (announced.status_code, streamed.status_code) == (413, 413)


async def test_patch_merges_metadata_and_keeps_what_applications_keep_there(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel(metadata={"alerts_enabled": False, "theirs": {"a": 1, "b": 2}})
    await connection.execute(
        "update notification_channels set metadata = metadata || '{\"big\": 12345678901234567890.5}'"
    )

    answer = await api.client.patch(
        f"/channels/{channel['id']}",
        json={"metadata": {"heartbeat_threshold_minutes": 0.5, "alerts_enabled": None, "theirs": {"b": 3}}},
    )

    kept = await connection.fetchval("select metadata->>'big' from notification_channels")
    metadata = answer.json()["metadata"]
    assert answer.status_code == 200
    assert metadata["theirs"] == {"a": 1, "b": 3}
    assert "alerts_enabled" not in metadata
    assert answer.json()["monitoring"]["threshold_minutes"] == 0.5
    assert kept == "12345678901234567890.5"


async def test_change_of_rules_makes_the_channel_due_and_is_applied_at_once(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel()

    await api.client.patch(
        f"/channels/{channel['id']}", json={"metadata": {"heartbeat_threshold_minutes": 1}}
    )

    due = await connection.fetchval("select due_at is not null from zapwatch_states")
    assert due is True
    assert api.applied == [UUID(channel["id"])]


async def test_address_and_key_given_later_make_a_channel_configured_and_probed(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel()

    answer = await api.client.patch(
        f"/channels/{channel['id']}", json={"api_url": "http://evo.example", "api_key": "k", "name": "Loja"}
    )

    shown = answer.json()
    assert (shown["api_url"], shown["name"]) == ("http://evo.example", "Loja")
    assert shown["monitoring"]["configured"] is True
    assert shown["next_check_at"] is not None


async def test_moving_a_channel_onto_anothers_place_is_a_conflict(api: Api) -> None:
    first = await api.channel(api_url="http://one.example")
    second = await api.channel(api_url="http://two.example")

    answer = await api.client.patch(f"/channels/{second['id']}", json={"api_url": "http://one.example"})

    assert answer.status_code == 409
    assert answer.json()["id"] == first["id"]


async def test_taking_the_key_away_ends_probing(api: Api) -> None:
    channel = await api.channel(api_url="http://evo.example", api_key="k")

    shown = (await api.client.patch(f"/channels/{channel['id']}", json={"api_key": None})).json()

    assert shown["monitoring"]["configured"] is False
    assert shown["next_check_at"] is None


async def test_paused_channel_is_not_probed_until_it_is_resumed(api: Api) -> None:
    channel = await api.channel(api_url="http://evo.example", api_key="k")

    paused = (await api.client.post(f"/channels/{channel['id']}/pause")).json()
    resumed = (await api.client.post(f"/channels/{channel['id']}/resume")).json()

    assert (paused["monitoring"]["paused"], paused["next_check_at"]) == (True, None)
    assert resumed["monitoring"]["paused"] is False
    assert resumed["next_check_at"] is not None
    assert len(api.applied) == 2


async def test_deleted_channel_is_gone_its_token_dead_and_its_instance_free(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel()
    token = channel["webhook_url"].rpartition("/")[2]
    tokens: Tokens = api.app.tokens
    assert await tokens.resolve("evolution_api", token) is not None

    answer = await api.client.delete(f"/channels/{channel['id']}")

    row = await connection.fetchrow("select deleted_at is not null as deleted from notification_channels")
    again = await api.channel()
    assert answer.status_code == 204
    assert row is not None
    assert row["deleted"] is True
    assert api.applied == [UUID(channel["id"])]
    assert await tokens.resolve("evolution_api", token) is None
    assert (await api.client.get(f"/channels/{channel['id']}/state")).status_code == 404
    assert (await api.client.delete(f"/channels/{channel['id']}")).status_code == 404
    assert again["id"] != channel["id"]


async def test_instance_of_a_channel_that_an_application_deleted_is_free(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel()
    await connection.execute("update notification_channels set deleted_at = now()")

    again = await api.channel()

    assert again["id"] != channel["id"]


@pytest.mark.parametrize(
    "id", ["", "x", "00000000-0000-0000-0000-00000000000g", "9f0d8a51-6c1e-4c39-8f7e-2f8a3c1d5b70", "%00"]
)
@pytest.mark.parametrize("path", ["/channels/{}/state", "/channels/{}/events", "/channels/{}/incidents"])
async def test_unknown_id_is_404(refusing: Api, path: str, id: str) -> None:
    answer = await refusing.client.get(path.format(id))

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("query", "instances"),
    [
        ("", ["a", "b", "c", "d"]),
        ("state=disconnected", ["a", "b"]),
        ("state=open", ["c"]),
        ("state=unknown", ["d"]),
        ("incident=open", ["b"]),
        ("q=LOJA", ["c"]),
        ("q=5511", ["d"]),
        ("q=%25", []),
        ("state=disconnected&q=b", ["b"]),
        ("state=", ["a", "b", "c", "d"]),
    ],
)
async def test_list_takes_filters(api: Api, connection: Connection, query: str, instances: list[str]) -> None:
    for instance, state in (("a", "disconnected/dropped"), ("b", "disconnected/unpaired"), ("c", "open")):
        channel = await api.channel(instance, name="Loja Centro" if instance == "c" else None)
        await connection.execute(
            "update zapwatch_states set state = $2 where channel_id = $1", UUID(channel["id"]), state
        )
        if instance == "b":
            await _incident(connection, channel["id"], "now() - interval '8 days'")
    last = await api.channel("d")
    await connection.execute(
        "update notification_channels set phone_number = '+551199' where id = $1", UUID(last["id"])
    )

    items = (await api.client.get(f"/channels?{query}")).json()["items"]

    assert sorted(item["instance"] for item in items) == instances
    assert all("incidents_7d" in item for item in items)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=x", "limit=-1", "limit=٣", "state=up", "state=disconnected/dropped",
     "incident=closed", "tenant_id=1", "gateway_id=1", "cursor=x", "cursor=W10=", "cursor=WyJ4Il0=", "q=%00"],
)  # fmt: skip
async def test_bad_query_parameter_is_named(refusing: Api, query: str) -> None:
    answer = await refusing.client.get(f"/channels?{query}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/" + query.partition("=")[0]


async def test_pages_show_every_channel_once(api: Api) -> None:
    registered = {(await api.channel(f"i{number}"))["id"] for number in range(5)}

    seen, cursor, pages = [], "", 0
    while cursor is not None:
        page = (await api.client.get("/channels", params={"limit": 2, "cursor": cursor})).json()
        seen += [item["channel_id"] for item in page["items"]]
        cursor, pages = page["next"], pages + 1

    assert pages == 3
    assert len(seen) == 5
    assert set(seen) == registered


async def test_page_that_holds_exactly_the_rest_is_the_last(api: Api) -> None:
    for number in range(2):
        await api.channel(f"i{number}")

    page = (await api.client.get("/channels?limit=2")).json()

    assert (len(page["items"]), page["next"]) == (2, None)


async def test_events_come_newest_first_in_pages(api: Api, connection: Connection) -> None:
    channel = await api.channel()
    for name in ("one", "two", "three"):
        await connection.execute(
            "insert into zapwatch_events"
            " (channel_id, tenant_id, source, name, received_at, last_received_at, state, data)"
            " values ($1, $2, 'webhook', $3, now(), now(), 'disconnected/dropped', '{\"a\": 1}')",
            UUID(channel["id"]),
            UUID(channel["tenant_id"]),
            name,
        )

    first = (await api.client.get(f"/channels/{channel['id']}/events?limit=2")).json()
    second = (await api.client.get(f"/channels/{channel['id']}/events?limit=2&cursor={first['next']}")).json()

    assert [item["name"] for item in first["items"]] == ["three", "two"]
    assert [item["name"] for item in second["items"]] == ["one"]
    assert second["next"] is None
    assert first["items"][0]["state"] == "disconnected"
    assert first["items"][0]["data"] == {"a": 1}


async def test_incidents_of_a_channel_are_those_of_its_last_days_and_the_open_one(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel()
    old = await _incident(connection, channel["id"], "now() - interval '9 days'", resolved=True)
    recent = await _incident(connection, channel["id"], "now() - interval '6 days'", resolved=True)
    still_open = await _incident(connection, channel["id"], "now() - interval '30 days'")

    week = (await api.client.get(f"/channels/{channel['id']}/incidents")).json()["items"]
    ten = (await api.client.get(f"/channels/{channel['id']}/incidents?days=10")).json()["items"]

    assert [item["id"] for item in week] == [str(recent), str(still_open)]
    assert [item["id"] for item in ten] == [str(recent), str(old), str(still_open)]


async def _incident(
    connection: Connection, channel_id: str, started_at: str, *, resolved: bool = False
) -> UUID:
    incident_id: UUID = await connection.fetchval(
        "insert into whatsapp_connection_incidents (tenant_id, channel_id, provider, kind, started_at,"
        " resolved_at) select tenant_id, id, provider, 'disconnected', " + started_at + ","
        " case when $2 then now() end from notification_channels where id = $1 returning id",
        UUID(channel_id),
        resolved,
    )
    return incident_id


async def put_by(connection: Connection, channel: str) -> str | None:
    """Return whose token put a channel where it is."""
    found: str | None = await connection.fetchval(
        "select put_by from zapwatch_channels where channel_id = $1", UUID(channel)
    )
    return found


async def test_channel_keeps_whether_an_operator_or_a_tenant_put_it_there(
    api: Api, connection: Connection
) -> None:
    tenant = await api.tenant()
    ours = await api.channel("loja-01", tenant_id=tenant)
    body = {"provider": "evolution_api", "instance": "loja-02"}
    async with api.operator_of(tenant) as client:
        theirs = (await client.post("/channels", json=body)).json()

    assert await put_by(connection, ours["id"]) == "operator"
    assert await put_by(connection, theirs["id"]) == "tenant"


@pytest.mark.parametrize("change", [{"api_url": "http://elsewhere:8080"}, {"api_key": "ke"}])
async def test_address_or_key_of_a_tenant_makes_the_channel_put_by_the_tenant(
    api: Api, connection: Connection, change: dict[str, str]
) -> None:
    tenant = await api.tenant()
    address = {"api_url": "http://evo:8080", "api_key": "k"}
    channel = (await api.channel(tenant_id=tenant, **address))["id"]
    await api.client.patch(f"/channels/{channel}", json=change)
    async with api.operator_of(tenant) as client:
        kept = {"name": "Loja", "api_url": change.get("api_url", address["api_url"])}
        assert (await client.patch(f"/channels/{channel}", json=kept)).status_code == 200
        before = await put_by(connection, channel)

        moved = {name: value.replace("e", "o") for name, value in change.items()}
        assert (await client.patch(f"/channels/{channel}", json=moved)).status_code == 200

    assert (before, await put_by(connection, channel)) == ("operator", "tenant")
