"""Destinations over HTTP: whose they are, what may be seen of them, and whether they are reached."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from standardwebhooks import Webhook

from db.alerts.destinations import open_config
from db.connection.types import Connection
from db.vault import Vault
from tests.receiver.alerts.sink import open_sink
from tests.receiver.conftest import KEY, Api, running_api

URL = "https://hooks.example/zapwatch"
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
OWN = {
    "id", "tenant_id", "kind", "name", "config", "events", "reminder_minutes", "enabled", "disabled_at",
    "disabled_why", "failing_since", "created_at", "updated_at",
}  # fmt: skip


async def made(client: httpx.AsyncClient, url: str = URL, **body: Any) -> dict[str, Any]:
    answer = await client.post("/destinations", json={"kind": "webhook", "config": {"url": url}, **body})
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/destinations/{shown['id']}"
    return shown


async def changed(client: httpx.AsyncClient, id: str, **body: Any) -> dict[str, Any]:
    answer = await client.patch(f"/destinations/{id}", json=body)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


async def listed(client: httpx.AsyncClient, **params: str) -> list[dict[str, Any]]:
    answer = await client.get("/destinations", params=params)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def kept(connection: Connection, id: str) -> dict[str, Any]:
    """Return a configuration as it is sealed."""
    sealed = await connection.fetchval(
        "select config from zapwatch_destinations where id = $1::text::uuid", id
    )
    return dict(open_config(Vault([KEY]), UUID(id), sealed))


async def tried(client: httpx.AsyncClient, id: str) -> httpx.Response:
    return await client.post(f"/destinations/{id}/test")


async def later(connection: Connection) -> None:
    """Let ten seconds pass, as far as tests of destinations know."""
    await connection.execute("update zapwatch_messages set leaves_at = leaves_at - interval '10 s'")


async def test_operators_are_told_of_gateways_too_unless_they_say_otherwise(api: Api) -> None:
    shown = await made(api.client)
    tenants = await made(api.client, tenant_id=await api.tenant())
    narrow = await made(api.client, events=["gateway.*", "gateway.opened"], reminder_minutes=30)

    assert set(shown) == OWN | {"secret"}
    assert shown["tenant_id"] is None
    assert shown["events"] == ["incident.opened", "incident.resolved", "gateway.opened", "gateway.resolved"]
    assert tenants["events"] == ["incident.opened", "incident.resolved"]
    assert (narrow["events"], narrow["reminder_minutes"]) == (["gateway.opened", "gateway.resolved"], 30)


async def test_a_secret_that_was_made_is_shown_once_and_one_that_was_given_never(api: Api) -> None:
    created = await made(api.client)
    given = await made(api.client, config={"url": URL, "secret": SECRET})

    shown = (await api.client.get(f"/destinations/{created['id']}")).json()

    assert created["secret"].startswith("whsec_")
    assert created["config"] == {"url": URL}
    assert shown == {name: value for name, value in created.items() if name != "secret"}
    assert "secret" not in given
    assert SECRET not in (await api.client.get("/destinations")).text


async def test_a_secret_that_is_not_sent_stays(api: Api, connection: Connection) -> None:
    created = await made(api.client, url=f"{URL}?key=s3cret")
    assert created["config"] == {"url": f"{URL}?***"}

    await changed(api.client, created["id"], config=created["config"], name="Hub")
    same = await kept(connection, created["id"])
    moved = await changed(api.client, created["id"], config={"url": f"{URL}/2"})

    assert same == {"url": f"{URL}?key=s3cret", "secret": created["secret"]}
    assert (moved["name"], moved["config"]) == ("Hub", {"url": f"{URL}/2"})
    assert (await kept(connection, created["id"]))["secret"] == created["secret"]


async def test_a_rotated_secret_is_shown_once_and_both_sign(api: Api) -> None:
    async with open_sink() as sink:
        created = await made(api.client, sink.url)

        rotated = await changed(api.client, created["id"], rotate_secret=True)
        await api.client.post(f"/destinations/{created['id']}/test")
        shown = (await api.client.get(f"/destinations/{created['id']}")).json()

    assert rotated["secret"] != created["secret"]
    assert "secret" not in shown
    assert "old_secret_until" in shown["config"]
    for secret in (created["secret"], rotated["secret"]):
        Webhook(secret).verify(sink.only.body, dict(sink.only.headers))


async def test_a_test_answers_what_the_destination_said_and_is_in_the_log(
    api: Api, connection: Connection
) -> None:
    async with open_sink() as sink:
        created = await made(api.client, sink.url)

        good = (await api.client.post(f"/destinations/{created['id']}/test")).json()
        sink.status, sink.body = 410, b"gone for good"
        await later(connection)
        bad = (await api.client.post(f"/destinations/{created['id']}/test")).json()

    log = (await api.client.get("/deliveries", params={"destination_id": created["id"]})).json()["items"]
    assert (good["ok"], good["status"], good["answer"]) == (True, 200, "ok")
    assert (bad["ok"], bad["status"], bad["answer"]) == (False, 410, "gone for good")
    assert sink.got[0].json["type"] == "test"
    assert [item["message"]["id"] for item in log] == [bad["id"], good["id"]]
    assert log[0]["destination"] == {"id": created["id"], "kind": "webhook", "name": None}
    assert (log[0]["decision"], log[0]["reason"], log[0]["event"]) == ("send", "asked", "test")
    assert (log[0]["outcome"], log[0]["answer"], log[0]["status"]) == ("failed", "gone for good", 410)
    assert [attempt["ok"] for item in log for attempt in item["attempts"]] == [False, True]
    assert log[0]["message"]["next_try_at"] is None


async def test_what_is_deleted_while_it_is_tried_is_a_failure_of_nobody(api: Api) -> None:
    async with open_sink() as sink:
        created = await made(api.client, sink.url)
        sink.meanwhile = lambda: api.client.delete(f"/destinations/{created['id']}")

        answer = await tried(api.client, created["id"])

    assert answer.json()["ok"] is True
    assert await listed(api.client) == []
    assert (await api.client.get("/deliveries")).json()["items"] == []


async def test_a_destination_is_tried_once_in_ten_seconds(api: Api, connection: Connection) -> None:
    async with open_sink() as sink:
        created, other = await made(api.client, sink.url), await made(api.client, sink.url)

        first = await tried(api.client, created["id"])
        again = await tried(api.client, created["id"])
        others = await tried(api.client, other["id"])
        got = len(sink.got)
        await later(connection)
        afterwards = await tried(api.client, created["id"])

    assert [it.status_code for it in (first, again, others, afterwards)] == [200, 429, 200, 200]
    assert 1 <= int(again.headers["Retry-After"]) <= 10
    assert again.headers["Content-Type"] == "application/problem+json"
    assert got == 2
    log = (await api.client.get("/deliveries", params={"destination_id": created["id"]})).json()["items"]
    assert [item["outcome"] for item in log] == ["delivered", "delivered"]


async def test_of_many_who_try_a_destination_at_once_one_does(dsn: str, api: Api) -> None:
    async with open_sink() as sink, running_api(dsn) as replica:
        created = await made(api.client, sink.url)

        answers = await asyncio.gather(
            *(tried(one.client, created["id"]) for one in (api, replica) for _ in range(5))
        )

    assert sorted(answer.status_code for answer in answers) == [200, *[429] * 9]
    assert len(sink.got) == 1


async def test_the_api_says_where_one_may_come_too_often(refusing: Api) -> None:
    paths = (await refusing.client.get("/openapi.json")).json()["paths"]

    limited = {
        path: operation["responses"]["429"]["headers"]
        for path, operations in paths.items()
        for operation in operations.values()
        if "429" in operation["responses"]
    }

    assert set(limited) == {"/channels/{id}/qr", "/channels/{id}/restart", "/destinations/{id}/test"}
    assert all("Retry-After" in headers for headers in limited.values())


async def test_a_tenants_test_reaches_nothing_inside(api: Api) -> None:
    async with open_sink() as sink:
        created = await made(api.client, sink.url, tenant_id=await api.tenant())

        answer = (await api.client.post(f"/destinations/{created['id']}/test")).json()

    assert (answer["ok"], answer["status"]) == (False, None)
    assert "OUTGOING_ALLOW" in answer["answer"]
    assert sink.got == []


async def test_a_tenant_sees_and_changes_its_own_alone(api: Api) -> None:
    ours, theirs = await api.tenant("Ours"), await api.tenant("Theirs")
    others = [await made(api.client), await made(api.client, tenant_id=theirs)]

    async with api.operator_of(ours) as client:
        created = await made(client)
        seen = await listed(client)
        foreign = await listed(client, tenant_id=theirs)
        answers = [
            await client.request(method, f"/destinations/{other['id']}{path}", json={})
            for other in others
            for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test"))
        ]
        named = await client.post(
            "/destinations", json={"kind": "webhook", "config": {"url": URL}, "tenant_id": theirs}
        )
        gateways = [
            await client.patch(f"/destinations/{created['id']}", json={"events": ["gateway.opened"]}),
            await client.post(
                "/destinations", json={"kind": "webhook", "config": {"url": URL}, "events": ["gateway.*"]}
            ),
        ]
        gone = await client.delete(f"/destinations/{created['id']}")

    assert created["tenant_id"] == ours
    assert {item["kind"] for item in seen} == {"webhook", "in_app"}
    assert {item["tenant_id"] for item in seen} == {ours}
    assert foreign == []
    assert {answer.status_code for answer in answers} == {404}
    assert named.json()["errors"][0]["pointer"] == "/tenant_id"
    assert {answer.json()["errors"][0]["pointer"] for answer in gateways} == {"/events/0"}
    assert gone.status_code == 204
    assert {item["id"] for item in await listed(api.client)} >= {other["id"] for other in others}


async def test_a_tenants_own_application_is_there_once_and_stays(api: Api) -> None:
    tenant = await api.tenant()

    async with api.operator_of(tenant) as client:
        [own] = await listed(client)
        again = await client.post("/destinations", json={"kind": "in_app"})
        deleted = await client.delete(f"/destinations/{own['id']}")
        for_all = await changed(
            client, own["id"], config={"recipients": "all"}, events=["incident.opened"], enabled=False
        )
        odd = [
            await client.patch(f"/destinations/{own['id']}", json={"config": config})
            for config in ({"recipients": "some"}, {"recipients": ["all"]}, {"url": URL})
        ]
        still = await listed(client)

    assert (own["kind"], own["config"], own["enabled"]) == ("in_app", {"recipients": "admins"}, True)
    assert (again.status_code, again.json()["id"]) == (409, own["id"])
    assert deleted.status_code == 409
    assert (for_all["config"], for_all["events"]) == ({"recipients": "all"}, ["incident.opened"])
    assert (for_all["enabled"], for_all["disabled_why"]) == (False, "operator")
    assert [answer.json()["errors"][0]["pointer"] for answer in odd] == [
        "/config/recipients",
        "/config/recipients",
        "/config/url",
    ]
    assert still == [for_all]


async def test_a_destination_that_was_given_up_is_taken_up_again(api: Api, connection: Connection) -> None:
    created = await made(api.client)
    await connection.execute(
        "update zapwatch_destinations"
        " set disabled_at = now(), disabled_why = 'failing', failing_since = now()"
    )

    before = (await api.client.get(f"/destinations/{created['id']}")).json()
    after = await changed(api.client, created["id"], enabled=True)

    assert (before["enabled"], before["disabled_why"]) == (False, "failing")
    assert (after["enabled"], after["disabled_why"], after["failing_since"]) == (True, None, None)


async def test_a_configuration_that_no_key_opens_is_said_to_be_so(api: Api, connection: Connection) -> None:
    created = await made(api.client)
    path = f"/destinations/{created['id']}"
    await connection.execute("update zapwatch_destinations set config = 'x'")

    shown = (await api.client.get(path)).json()
    answers = [
        await api.client.post(f"{path}/test"),
        await api.client.patch(path, json={"config": {"url": URL}}),
    ]
    renamed = await changed(api.client, created["id"], name="Hub")

    assert shown["config"] is None
    assert [answer.status_code for answer in answers] == [409, 409]
    assert renamed["name"] == "Hub"


async def test_destinations_are_listed_in_pages(api: Api) -> None:
    ids = {(await made(api.client))["id"] for _ in range(3)}

    first = (await api.client.get("/destinations?limit=2")).json()
    second = (await api.client.get("/destinations", params={"limit": 2, "cursor": first["next"]})).json()

    assert {item["id"] for item in first["items"] + second["items"]} == ids
    assert (len(first["items"]), second["next"]) == (2, None)


TELEGRAM = {"token": "123456:s3cret-token-of-the-bot-of-the-tests", "chat_id": "-100200300"}
EMAIL = {
    "host": "mail.example",
    "user": "zap",
    "password": "s3cret-password",
    "from": "zap@mail.example",
    "to": ["ops@mail.example"],
}


@pytest.mark.parametrize(
    ("kind", "config", "change"),
    [
        ("slack", {"url": "https://hooks.slack.com/services/T0/B0/s3cret-path"}, {}),
        ("telegram", TELEGRAM, {"chat_id": "-7"}),
        ("email", EMAIL, {"to": ["ana@mail.example"], "user": "zapwatch"}),
    ],
)
async def test_no_kind_shows_its_secret_and_each_keeps_it(
    api: Api, connection: Connection, kind: str, config: dict[str, Any], change: dict[str, Any]
) -> None:
    created = await made(api.client, kind=kind, config=config)
    before = await kept(connection, created["id"])

    answer = await api.client.patch(
        f"/destinations/{created['id']}", json={"config": {**created["config"], **change}}
    )

    assert answer.status_code == 200, answer.text
    assert "s3cret" not in str(created) + answer.text
    assert await kept(connection, created["id"]) == {**before, **change}
    assert "s3cret" in str(before)


@pytest.mark.parametrize(
    ("kind", "config", "move", "secret", "fresh"),
    [
        ("email", EMAIL, {"host": "mail.evil.example"}, "password", "s3cret-2"),
        ("email", EMAIL, {"port": 2525}, "password", EMAIL["password"]),
        ("email", {**EMAIL, "port": 2525}, {"port": None}, "password", "s3cret-2"),
        ("email", EMAIL, {"tls": "none"}, "password", "s3cret-2"),
        ("telegram", TELEGRAM, {"api_url": "https://evil.example"}, "token", TELEGRAM["token"]),
        (
            "telegram",
            {**TELEGRAM, "api_url": "https://bots.example"},
            {"api_url": None},
            "token",
            "1:" + "t" * 30,
        ),
    ],
    ids=lambda value: ascii(value)[:30],
)
async def test_a_secret_that_would_be_sent_elsewhere_must_be_sent_again(
    api: Api,
    connection: Connection,
    kind: str,
    config: dict[str, Any],
    move: dict[str, Any],
    secret: str,
    fresh: str,
) -> None:
    created = await made(api.client, kind=kind, config=config)
    path, before = f"/destinations/{created['id']}", await kept(connection, created["id"])

    alone = await api.client.patch(path, json={"name": "Hub", "config": move})
    unmoved = await kept(connection, created["id"])
    together = await api.client.patch(path, json={"name": "Hub", "config": {**move, secret: fresh}})

    assert alone.status_code == 422
    assert alone.json()["errors"] == [
        {
            "pointer": f"/config/{secret}",
            "detail": "Must be sent again: this changes where it is sent, or how.",
        }
    ]
    assert unmoved == before
    assert together.status_code == 200, together.text
    expected = {**before, **move, secret: fresh}
    assert await kept(connection, created["id"]) == {k: v for k, v in expected.items() if v is not None}


async def test_what_holds_no_secret_any_more_may_move(api: Api, connection: Connection) -> None:
    created = await made(api.client, kind="email", config=EMAIL)

    await changed(api.client, created["id"], config={"host": "evil.example", "user": None, "password": None})

    assert await kept(connection, created["id"]) == {
        "host": "evil.example",
        "tls": "starttls",
        "from": EMAIL["from"],
        "to": EMAIL["to"],
    }


async def test_a_refused_move_leaves_the_secret_going_where_it_went(api: Api) -> None:
    async with open_sink() as own, open_sink() as evil:
        created = await made(api.client, kind="telegram", config={**TELEGRAM, "api_url": own.url})
        path = f"/destinations/{created['id']}"

        refused = await api.client.patch(path, json={"config": {"api_url": evil.url}})
        same = await api.client.patch(path, json={"config": {"api_url": own.url}})
        await api.client.post(f"{path}/test")

    assert (refused.status_code, same.status_code) == (422, 200)
    assert own.only.path == f"/bot{TELEGRAM['token']}/sendMessage"
    assert evil.got == []


async def test_an_address_that_is_the_secret_moves_as_one(api: Api) -> None:
    async with open_sink() as own, open_sink() as other:
        created = await made(api.client, kind="slack", config={"url": f"{own.url}/s3cret-path"})

        await changed(api.client, created["id"], config={"url": f"{other.url}/mine"})
        await api.client.post(f"/destinations/{created['id']}/test")

    assert other.only.path == "/mine"
    assert "s3cret" not in f"{other.only}"
    assert own.got == []


async def test_a_secret_that_only_signs_stays_where_the_address_moves(api: Api) -> None:
    async with open_sink() as sink:
        created = await made(api.client)

        await changed(api.client, created["id"], config={"url": sink.url})
        await api.client.post(f"/destinations/{created['id']}/test")

    Webhook(created["secret"]).verify(sink.only.body, dict(sink.only.headers))
    assert created["secret"] not in f"{sink.only}"


WEBHOOK: dict[str, Any] = {"kind": "webhook", "config": {"url": URL}}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/kind"),
        ({"kind": "pigeon"}, "/kind"),
        ({"kind": 5}, "/kind"),
        ({"kind": "in_app"}, "/kind"),
        ({"kind": "webhook"}, "/config/url"),
        ({"kind": "webhook", "config": []}, "/config"),
        ({"kind": "webhook", "config": {"url": "ftp://x"}}, "/config/url"),
        ({"kind": "webhook", "config": {"url": "https://"}}, "/config/url"),
        ({"kind": "webhook", "config": {"url": "https://x\r\nX-Evil: 1/"}}, "/config/url"),
        ({"kind": "webhook", "config": {"url": ["https://x"]}}, "/config/url"),
        ({"kind": "webhook", "config": {"url": "https://[::1"}}, "/config/url"),
        ({"kind": "webhook", "config": {"url": "https://x/" + "y" * 2048}}, "/config/url"),
        ({"kind": "webhook", "config": {"url": URL, "secret": "short"}}, "/config/secret"),
        ({"kind": "webhook", "config": {"url": URL, "a/b~c": 1}}, "/config/a~1b~0c"),
        ({"kind": "webhook", "config": {"url": "\0"}}, "/config/url"),
        ({**WEBHOOK, "events": []}, "/events"),
        ({**WEBHOOK, "events": ["everything"]}, "/events/0"),
        ({**WEBHOOK, "events": ["incident.opened"] * 21}, "/events"),
        ({**WEBHOOK, "events": "incident.opened"}, "/events"),
        ({**WEBHOOK, "reminder_minutes": 0}, "/reminder_minutes"),
        ({**WEBHOOK, "reminder_minutes": 10**9}, "/reminder_minutes"),
        ({**WEBHOOK, "name": ""}, "/name"),
        ({**WEBHOOK, "tenant_id": str(uuid4())}, "/tenant_id"),
        ({**WEBHOOK, "tenant_id": "x"}, "/tenant_id"),
        ({**WEBHOOK, "enabled": True}, "/enabled"),
    ],
    ids=lambda value: ascii(value)[:60],
)
async def test_odd_destination_is_422_and_names_its_field(
    refusing: Api, body: dict[str, Any], pointer: str
) -> None:
    answer = await refusing.client.post("/destinations", json=body)

    assert answer.status_code == 422, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"kind": "webhook"}, "/kind"),
        ({"config": {"url": None}}, "/config/url"),
        ({"config": {"url": "x"}}, "/config/url"),
        ({"config": None}, "/config"),
        ({"events": None}, "/events"),
        ({"enabled": None}, "/enabled"),
        ({"enabled": 1}, "/enabled"),
        ({"rotate_secret": "yes"}, "/rotate_secret"),
    ],
    ids=lambda value: ascii(value)[:60],
)
async def test_odd_change_is_422_and_changes_nothing(api: Api, body: dict[str, Any], pointer: str) -> None:
    created = await made(api.client)
    path = f"/destinations/{created.pop('id')}"

    answer = await api.client.patch(path, json={"name": "Hub", **body})

    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert (await api.client.get(path)).json()["name"] is None


async def test_nobody_changes_or_tries_what_is_not_there(api: Api) -> None:
    for id in (str(uuid4()), "x"):
        answers = [
            await api.client.get(f"/destinations/{id}"),
            await api.client.patch(f"/destinations/{id}", json={"name": "x"}),
            await api.client.delete(f"/destinations/{id}"),
            await api.client.post(f"/destinations/{id}/test"),
        ]
        assert [answer.status_code for answer in answers] == [404] * 4


async def test_what_was_decided_is_told_with_its_reason_and_only_to_its_tenant(
    api: Api, connection: Connection
) -> None:
    ours, theirs = await api.tenant("Ours"), await api.tenant("Theirs")
    operators = await made(api.client)
    incidents = []
    for tenant in (ours, theirs):
        channel = await api.channel(instance=tenant, tenant_id=tenant)
        incident = await connection.fetchval(
            "select whatsapp_heartbeat_open_incident($1::text::uuid, 'error')", channel["id"]
        )
        incidents.append(str(incident))
        await connection.execute(
            "insert into zapwatch_decisions (incident_id, tenant_id, event, is_sent, why)"
            " values ($1, $2::text::uuid, 'incident.opened', false, 'maintenance')",
            incident,
            tenant,
        )
        # What operators are told is nothing to the tenant, whoever's row it may be.
        await connection.execute(
            "insert into zapwatch_decisions (incident_id, tenant_id, destination_id, event, is_sent, why)"
            " values ($1, $2::text::uuid, $3::text::uuid, 'incident.opened', false, 'disabled')",
            incident,
            tenant,
            operators["id"],
        )

    async with api.operator_of(ours) as client:
        own = (await client.get("/deliveries")).json()["items"]
        foreign = (await client.get("/deliveries", params={"incident_id": incidents[1]})).json()["items"]
    of_one = (await api.client.get("/deliveries", params={"incident_id": incidents[1]})).json()["items"]
    page = (await api.client.get("/deliveries?limit=3")).json()
    rest = (await api.client.get("/deliveries", params={"cursor": page["next"]})).json()

    [item] = own
    assert (item["decision"], item["reason"], item["incident_id"]) == ("skip", "maintenance", incidents[0])
    assert (item["destination"], item["answer"], item["attempts"]) == (None, None, [])
    assert foreign == []
    assert [item["reason"] for item in of_one] == ["disabled", "maintenance"]
    assert (len(page["items"]), len(rest["items"]), rest["next"]) == (3, 1, None)
