"""Maintenance windows over HTTP: whose they are, what they may be, and how they end."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.receiver.conftest import Api


def hence(**span: float) -> str:
    """So far from now, as operators write it."""
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


async def opened(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/maintenance", json={"ends_at": hence(hours=1), **body})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/maintenance/{answer.json()['id']}"
    shown: dict[str, Any] = answer.json()
    return shown


async def listed(client: httpx.AsyncClient) -> list[str]:
    return [item["id"] for item in (await client.get("/maintenance")).json()["items"]]


async def test_a_window_runs_from_now_to_its_end_in_utc(api: Api) -> None:
    channel = await api.channel()

    window = await opened(
        api.client, channel_id=channel["id"], ends_at="2099-06-01T09:00:00-03:00", why="new phone"
    )

    assert window["state"] == "running"
    assert window["ends_at"] == "2099-06-01T12:00:00Z"
    assert (window["channel_id"], window["tenant_id"]) == (channel["id"], channel["tenant_id"])
    assert window["why"] == "new phone"
    assert (await api.client.get(f"/maintenance/{window['id']}")).json() == window


async def test_windows_are_listed_latest_start_first_and_in_pages(api: Api) -> None:
    ids = [
        (await opened(api.client, starts_at=hence(hours=hours), ends_at=hence(hours=9)))["id"]
        for hours in (1, 3, 2)
    ]

    first = (await api.client.get("/maintenance?limit=2")).json()
    second = (await api.client.get("/maintenance", params={"limit": 2, "cursor": first["next"]})).json()

    assert [item["id"] for item in first["items"]] == [ids[1], ids[2]]
    assert [item["id"] for item in second["items"]] == [ids[0]]
    assert second["next"] is None
    assert {item["state"] for item in first["items"]} == {"planned"}


async def test_deleting_a_window_that_runs_ends_it_and_keeps_it(api: Api) -> None:
    window = await opened(api.client)

    answer = await api.client.delete(f"/maintenance/{window['id']}")

    shown = (await api.client.get(f"/maintenance/{window['id']}")).json()
    assert answer.status_code == 204
    assert shown["state"] == "over"
    assert shown["ends_at"] < window["ends_at"]


async def test_deleting_a_window_that_is_to_come_forgets_it(api: Api) -> None:
    window = await opened(api.client, starts_at=hence(minutes=30))

    answer = await api.client.delete(f"/maintenance/{window['id']}")

    assert answer.status_code == 204
    assert (await api.client.get(f"/maintenance/{window['id']}")).status_code == 404
    assert (await api.client.delete(f"/maintenance/{window['id']}")).status_code == 404


async def test_a_tenant_opens_windows_of_its_own_and_sees_no_other(api: Api) -> None:
    ours, theirs = await api.tenant("Ours"), await api.tenant("Theirs")
    channel = await api.channel(tenant_id=theirs)
    others = [
        await opened(api.client),
        await opened(api.client, tenant_id=theirs),
        await opened(api.client, channel_id=channel["id"]),
    ]

    async with api.operator_of(ours) as client:
        window = await opened(client)
        seen = await listed(client)
        foreign = [await client.delete(f"/maintenance/{other['id']}") for other in others]
        named = await client.post("/maintenance", json={"ends_at": hence(hours=1), "tenant_id": theirs})
        guessed = await client.post(
            "/maintenance", json={"ends_at": hence(hours=1), "channel_id": channel["id"]}
        )
        gateway = await client.post(
            "/maintenance", json={"ends_at": hence(hours=1), "gateway_id": str(uuid4())}
        )

    assert window["tenant_id"] == ours
    assert seen == [window["id"]]
    assert [answer.status_code for answer in foreign] == [404] * 3
    assert (named.status_code, guessed.status_code, gateway.status_code) == (422, 422, 403)
    assert {item["state"] for item in (await api.client.get("/maintenance")).json()["items"]} == {"running"}


NOWHERE = str(uuid4())


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/ends_at"),
        ({"ends_at": None}, "/ends_at"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, "/ends_at"),
        ({"ends_at": "2099-01-01"}, "/ends_at"),
        ({"ends_at": "2099-01-01T00:00:00"}, "/ends_at"),
        ({"ends_at": "2099-W01-1T00:00:00Z"}, "/ends_at"),
        ({"ends_at": "2099-02-30T00:00:00Z"}, "/ends_at"),
        ({"ends_at": "9999-12-31T23:59:59-14:00"}, "/ends_at"),
        ({"ends_at": "٢٠٩٩-01-01T00:00:00Z"}, "/ends_at"),
        ({"ends_at": 4102444800}, "/ends_at"),
        ({"starts_at": "2099-01-01T00:00:00Z", "ends_at": "2099-01-01T00:00:00Z"}, "/ends_at"),
        ({"starts_at": "x", "ends_at": "2099-01-01T00:00:00Z"}, "/starts_at"),
        ({"ends_at": "2099-01-01T00:00:00Z", "channel_id": NOWHERE}, "/channel_id"),
        ({"ends_at": "2099-01-01T00:00:00Z", "gateway_id": NOWHERE}, "/gateway_id"),
        ({"ends_at": "2099-01-01T00:00:00Z", "tenant_id": NOWHERE}, "/tenant_id"),
        ({"ends_at": "2099-01-01T00:00:00Z", "tenant_id": NOWHERE, "channel_id": NOWHERE}, "/channel_id"),
        ({"ends_at": "2099-01-01T00:00:00Z", "why": "\0"}, "/why"),
        ({"ends_at": "2099-01-01T00:00:00Z", "why": "y" * 501}, "/why"),
        ({"ends_at": "2099-01-01T00:00:00Z", "for": "x"}, "/for"),
    ],
    ids=lambda value: ascii(value)[:50],
)
async def test_odd_window_is_422_and_names_its_field(
    refusing: Api, body: dict[str, Any], pointer: str
) -> None:
    answer = await refusing.client.post("/maintenance", json=body)

    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
