"""Health, metrics, the API's own description, and the door that every other route is behind."""

import re
from dataclasses import replace

import asyncpg
import pytest

from db.connection.types import Connection
from receiver.api import OPERATIONS
from receiver.api.endpoint import Operation
from tests.receiver.conftest import Api, client_of

OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}
GUARDED = [(operation.method, operation.path) for operation in OPERATIONS if isinstance(operation, Operation)]


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic x", "Bearer wrong", "zw_x", "Bearer ü", "Bearer a b"]
)
async def test_every_route_but_the_open_ones_asks_for_a_token(refusing: Api, header: str | None) -> None:
    headers = {} if header is None else {b"Authorization": header.encode()}

    async with client_of(refusing.app, None) as client:
        answers = [
            await client.request(method, path.replace("{id}", "x"), headers=headers)
            for method, path in GUARDED
        ]

    assert len(answers) > 15
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/problem+json"}


async def test_open_routes_need_no_token(refusing: Api) -> None:
    async with client_of(refusing.app, None) as client:
        answers = [(await client.get(path)).status_code for path in sorted(OPEN)]

    assert answers == [200] * 5


async def test_revoked_token_opens_nothing(api: Api, connection: Connection) -> None:
    await connection.execute("update zapwatch_tokens set revoked_at = now()")

    answer = await api.client.get("/channels")

    assert answer.status_code == 401


async def test_webhook_token_opens_nothing(api: Api) -> None:
    channel = await api.channel()

    async with client_of(api.app, channel["webhook_url"].rpartition("/")[2]) as client:
        answer = await client.get("/channels")

    assert answer.status_code == 401


async def test_ready_only_when_migrated(api: Api, connection: Connection) -> None:
    await connection.execute("delete from zapwatch_migrations where name like '0001%'")

    answer = await api.client.get("/readyz")

    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_without_a_database_it_lives_but_is_not_ready(api: Api) -> None:
    away = asyncpg.create_pool("postgresql://nobody@/nothing?host=/does/not/exist", min_size=0)
    async with away, client_of(replace(api.app, pool=away), api.token) as client:
        answers = [await client.get(path) for path in ("/healthz", "/readyz", "/metrics", "/channels")]

    assert [answer.status_code for answer in answers] == [200, 503, 200, 503]
    assert answers[1].headers["Retry-After"]
    assert answers[3].headers["Retry-After"]


async def test_metrics_count_channels_by_state_and_name_none(api: Api) -> None:
    channel = await api.channel("loja-01", name="Loja Centro")

    text = (await api.client.get("/metrics")).text

    assert 'zapwatch_channels{state="unknown"} 1.0' in text
    assert 'zapwatch_channels{state="open"} 0.0' in text
    for private in ("loja-01", "Loja", channel["id"], channel["tenant_id"]):
        assert private not in text


async def test_channels_are_not_counted_for_every_scrape(api: Api) -> None:
    await api.client.get("/metrics")
    await api.channel()

    text = (await api.client.get("/metrics")).text

    assert 'zapwatch_channels{state="unknown"} 0.0' in text


async def test_description_names_every_route_and_resolves_its_references(refusing: Api) -> None:
    answer = await refusing.client.get("/openapi.json")

    described = answer.json()
    operations = {
        (method.upper(), path) for path, methods in described["paths"].items() for method in methods
    }
    references = set(re.findall(r'"#/components/schemas/(\w+)"', answer.text))
    assert {(method, path) for method, path in GUARDED} <= operations
    assert references
    assert references <= set(described["components"]["schemas"])


async def test_page_about_the_api_loads_nothing_from_elsewhere(refusing: Api) -> None:
    page = (await refusing.client.get("/docs")).text

    assert "POST /channels" in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)


async def test_times_end_in_z_and_text_is_utf8(api: Api) -> None:
    await api.tenant("Loja São João")

    answer = await api.client.get("/tenants")

    assert "São João".encode() in answer.content
    assert answer.json()["items"][0]["created_at"].endswith("Z")
