"""Checks over HTTP: one channel's answer, and the progress of many, of a real service and real gateways."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from db.connection.types import Connection
from db.registry.tokens import create_operator_token
from receiver.sandbox import Fault
from tests.receiver.conftest import client_of
from tests.support.story import Story, story

NEVER = timedelta(hours=1)
UNHURRIED: dict[str, Any] = {"stale_after": NEVER, "retry_after": NEVER}
"""Settings under which the service asks nobody by itself after the first answer."""


async def checked(told: Story, channel: str, status: int = 200) -> dict[str, Any]:
    """Check one channel and return the answer, which must have this status."""
    answer = await told.z.client.post(f"/channels/{channel}/check")
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == (
        "application/json" if status == 200 else "application/problem+json"
    )
    return dict(answer.json())


async def begun(client: httpx.AsyncClient, **params: str) -> dict[str, Any]:
    """Begin a check of many channels and return the answer."""
    answer = await client.post("/check", params=params)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/check/{answer.json()['id']}"
    return dict(answer.json())


async def finished(told: Story, check: dict[str, Any]) -> dict[str, Any]:
    """Return a check once it has ended."""
    path = f"/check/{check['id']}"
    return dict(await told.z.until(lambda: told.z.get(path), lambda shown: shown["finished_at"]))


@asynccontextmanager
async def operator_of(
    told: Story, connection: Connection, tenant_id: str
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with a token of this tenant."""
    token = await create_operator_token(connection, tenant_id=UUID(tenant_id))
    async with client_of(told.z.app, token) as client:
        yield client


async def tenant(told: Story, name: str) -> str:
    """Make a tenant and return its id."""
    return str((await told.z.client.post("/tenants", json={"name": name})).json()["id"])


async def test_open_channel_answers_open(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)
        asked = len(instance.probed)

        answer = await checked(told, channel)

        assert isinstance(answer.pop("took_ms"), int)
        assert answer == {"outcome": "open", "state": "open", "http_status": 200}
        assert len(instance.probed) == asked + 1


async def test_one_answer_that_an_instance_is_lost_changes_nothing_yet(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        instance.vanish()
        answers = [await checked(told, channel) for _ in range(3)]

        # The others came too soon after the first to count.
        for answer in answers:
            assert (answer["outcome"], answer["http_status"]) == ("session_missing", 404)
            assert answer["state"] == "open"


async def test_two_answers_apart_that_an_instance_is_lost_are_a_loss(dsn: str) -> None:
    async with story(dsn, stale_after=NEVER, retry_after=timedelta(seconds=2)) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        instance.vanish()
        first = await checked(told, channel)

        assert first["state"] == "open"
        await told.becomes(channel, "disconnected", "session_missing")
        assert (await checked(told, channel))["state"] == "disconnected"


async def test_silent_gateway_is_a_timeout_without_a_status(dsn: str) -> None:
    timeout = timedelta(seconds=0.7)
    async with story(dsn, **UNHURRIED, probe_timeout=timeout) as told:
        host = await told.fleet.evolution()
        channel = await told.watch(host, host.add("loja-01"))

        host.fault = Fault.HANG
        answer = await checked(told, channel)

        assert answer["took_ms"] >= 700
        assert (answer["outcome"], answer["http_status"]) == ("timeout", None)
        assert answer["state"] == "open"


@pytest.mark.parametrize(
    ("fault", "outcome", "status"),
    [
        (Fault.REFUSED, "unreachable", None),
        (Fault.RESET, "unreachable", None),
        (Fault.HTML_NOT_FOUND, "unreachable", 404),
        (Fault.UNAVAILABLE, "unreachable", 503),
        (Fault.SERVER_ERROR, "unreachable", 500),
        (Fault.GARBAGE, "unreachable", 200),
        (Fault.NO_STATE, "not_loaded", 200),
    ],
    ids=lambda it: it.name if isinstance(it, Fault) else "",
)
async def test_answer_names_what_is_wrong_with_a_gateway(
    dsn: str, fault: Fault, outcome: str, status: int | None
) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution()
        channel = await told.watch(host, host.add("loja-01"))

        host.fault = fault
        answer = await checked(told, channel)

        assert (answer["outcome"], answer["http_status"]) == (outcome, status)
        assert answer["state"] == "open"


async def test_wrong_key_is_named_and_not_shown(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)
        wrong = {"api_key": "wr0ng-k3y-0f-the-channel"}
        assert (await told.z.client.patch(f"/channels/{channel}", json=wrong)).status_code == 200

        answer = await told.z.client.post(f"/channels/{channel}/check")

        assert answer.json()["outcome"] == "unauthorized"
        assert answer.json()["http_status"] == 401
        for secret in (wrong["api_key"], instance.key, host.key):
            assert secret not in answer.text + str(answer.headers)


async def test_unknown_and_odd_channels_are_404(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution()
        channel = await told.watch(host, host.add("loja-01"))
        assert (await told.z.client.delete(f"/channels/{channel}")).status_code == 204

        for odd in (channel, str(uuid4()), "x", "%00", "%F0%9F%98%80", f"{channel}x", "0" * 4000):
            await checked(told, odd, 404)
            assert (await told.z.client.get(f"/check/{odd}")).status_code == 404


async def test_channel_that_cannot_be_asked_is_a_conflict(dsn: str, connection: Connection) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution()
        paused, other = await told.watch_all(host, [host.add(f"loja-{n}") for n in range(2)])
        unkeyed = await told.z.channel("loja-8", api_url=host.url)
        addressless = await told.z.channel("loja-9", api_key="k")
        assert (await told.z.client.post(f"/channels/{paused}/pause")).status_code == 200
        # A key that was sealed for another channel opens for nobody else.
        await connection.execute(
            "update zapwatch_channels set api_key = (select api_key from zapwatch_channels"
            " where channel_id = $1::text::uuid) where channel_id = $2::text::uuid",
            paused,
            other,
        )
        asked = [len(instance.probed) for instance in host.channels.values()]

        refused = [await checked(told, id, 409) for id in (paused, unkeyed, addressless, other)]
        many = [
            (await told.z.client.post("/check", params={"channel_id": id})).status_code
            for id in (paused, unkeyed, addressless)
        ]

        assert "paused" in refused[0]["detail"]
        assert ["no key" in problem["detail"] for problem in refused[1:3]] == [True, True]
        assert "its key can't be opened" in refused[3]["detail"]
        assert many == [409] * 3
        assert [len(instance.probed) for instance in host.channels.values()] == asked


async def test_check_of_all_goes_on_to_its_end(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        hosts: list[Any] = [await told.fleet.evolution(), await told.fleet.wapi()]
        instances = [host.add(f"loja-{n}") for n in range(3) for host in hosts]
        for n, instance in enumerate(instances):
            await told.watch(hosts[n % 2], instance)
        paused = await told.watch(hosts[0], hosts[0].add("paused"))
        assert (await told.z.client.post(f"/channels/{paused}/pause")).status_code == 200
        await told.z.channel("unconfigured")
        asked = [len(instance.probed) for instance in instances]

        began = await begun(told.z.client)
        ended = await finished(told, began)

        assert (began["total"], began["channel_id"]) == (6, None)
        assert (ended["total"], ended["done"]) == (6, 6)
        assert ended["started_at"] == began["started_at"] < ended["finished_at"]
        assert [len(instance.probed) for instance in instances] == [before + 1 for before in asked]


async def test_check_of_one_asks_nobody_else(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution()
        asked, left = host.add("loja-01"), host.add("loja-02")
        channel = await told.watch(host, asked)
        await told.watch(host, left)
        before = len(asked.probed), len(left.probed)

        began = await begun(told.z.client, channel_id=channel)
        ended = await finished(told, began)

        assert (ended["channel_id"], ended["total"], ended["done"]) == (channel, 1, 1)
        assert (len(asked.probed), len(left.probed)) == (before[0] + 1, before[1])


async def test_check_of_nothing_ends(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        ended = await finished(told, await begun(told.z.client))

        assert (ended["total"], ended["done"]) == (0, 0)


async def test_gateway_that_hangs_keeps_up_no_other_and_the_check_runs_on(dsn: str) -> None:
    async with story(dsn, **UNHURRIED, probe_timeout=timedelta(minutes=1)) as told:
        hanging, healthy = await told.fleet.evolution(), await told.fleet.evolution()
        stuck = await told.watch_all(hanging, [hanging.add(f"loja-{n}") for n in range(3)])
        for n in range(5):
            await told.watch(healthy, healthy.add(f"loja-{n}"))
        before = [(await told.z.state(channel))["last_health_check"] for channel in stuck]

        hanging.fault = Fault.HANG
        began = await begun(told.z.client)
        path = f"/check/{began['id']}"
        shown = await told.z.until(lambda: told.z.get(path), lambda shown: shown["done"] == 5)
        again = await begun(told.z.client)

        assert shown["finished_at"] is None
        assert [(await told.z.state(channel))["last_health_check"] for channel in stuck] == before
        assert again["id"] == began["id"]
        hanging.fault = Fault.REFUSED  # which cuts the connections that hang
        ended = await finished(told, began)
        assert ended["done"] == ended["total"] == 8
        assert (await begun(told.z.client))["id"] != began["id"]


async def test_operator_of_a_tenant_checks_and_sees_its_own_only(dsn: str, connection: Connection) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution()
        one, other = await tenant(told, "one"), await tenant(told, "other")
        mine = host.add("mine")
        theirs = host.add("theirs")
        my_channel = await told.watch(host, mine, tenant_id=one)
        their_channel = await told.watch(host, theirs, tenant_id=other)
        before = len(theirs.probed)

        async with operator_of(told, connection, one) as me, operator_of(told, connection, other) as them:
            check = await begun(me)
            ended = await finished(told, check)
            single = await me.post(f"/channels/{my_channel}/check")
            seen = await me.get(f"/check/{check['id']}")
            hidden = [
                await them.get(f"/check/{check['id']}"),
                await me.post(f"/channels/{their_channel}/check"),
                await me.post("/check", params={"channel_id": their_channel}),
            ]
            assert len(theirs.probed) == before
            everybodys = await begun(told.z.client)
            hidden.append(await me.get(f"/check/{everybodys['id']}"))

        assert ended["total"] == ended["done"] == 1
        assert (single.status_code, single.json()["outcome"]) == (200, "open")
        assert (seen.status_code, seen.json()["id"]) == (200, check["id"])
        assert [answer.status_code for answer in hidden] == [404] * 4
        assert everybodys["total"] == 2


async def test_odd_queries_of_a_check_are_refused_or_pass_by(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        refused = await told.z.client.post("/check", params={"channel_id": "x"})
        unknown = await told.z.client.post("/check", params={"channel_id": str(uuid4())})

        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "/channel_id"
        assert unknown.status_code == 404
        assert (await begun(told.z.client, channel_id=""))["channel_id"] is None
