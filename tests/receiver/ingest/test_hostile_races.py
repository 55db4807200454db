"""Many at once, and a database that refuses: nobody loses, nobody waits for a stranger."""

import asyncio
import time as clocks
from dataclasses import replace

import asyncpg
import httpx

from db.connection.types import Connection
from receiver.service.composition import http_app
from tests.factories import Evolution
from tests.receiver.conftest import client_of
from tests.support.eventually import let_tasks_run
from tests.support.hostile import Rig, written
from tests.support.service import KEY, zapwatch


async def test_hundred_copies_at_once_are_one_event_and_one_incident(rig: Rig) -> None:
    instance, channel, hooks = await rig.lone()
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("open"))
    body = evolution.update("close", 401)

    answers = await asyncio.gather(
        *(rig.z.post(hooks[("channel", "gateway")[n % 2]], body) for n in range(100))
    )

    assert set(answers) == {204}
    events = [event for event in await rig.z.events(channel) if event["trigger"] == "unpaired"]
    assert [(event["count"], event["deliveries"]) for event in events] == [(1, 100)]
    await rig.z.incident(channel)
    assert len(await rig.z.incidents(channel)) == 1


async def test_registered_at_once_one_wins(rig: Rig) -> None:
    body = {"provider": "waha", "instance": f"race-{next(rig.numbers)}", "api_url": "http://127.0.0.1:9/race"}

    answers = await asyncio.gather(*(rig.z.client.post("/channels", json=body) for _ in range(20)))

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] + [409] * 19
    (winner,) = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert {answer.json()["id"] for answer in answers if answer.status_code == 409} == {winner}


async def test_gateway_registered_while_its_channels_hear_disturbs_neither(rig: Rig) -> None:
    url = f"http://127.0.0.1:9/late-{next(rig.numbers)}"
    channels = [(name, await rig.z.channel(name, api_url=url)) for name in (f"late-{n}" for n in range(10))]

    async def flood() -> set[int]:
        return {
            await rig.z.post(channel, Evolution(name).update(state))
            for state in ("open", "connecting") * 5
            for name, channel in channels
        }

    body = {"provider": "evolution_api", "base_url": url, "api_key": "k"}
    flooded, answer = await asyncio.gather(flood(), rig.z.client.post("/gateways", json=body))

    assert (flooded, answer.status_code) == ({204}, 201)


async def test_deleted_while_webhooks_arrive_answers_them_and_leaves_no_open_incident(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("open"))

    async def flood() -> list[int]:
        return [
            await rig.z.post(hooks["channel"], evolution.update(state))
            for state in ("close", "open", "connecting", "close") * 10
        ]

    async def delete() -> int:
        await rig.z.until(lambda: rig.z.events(channel), lambda events: len(events) > 3)
        return (await rig.z.client.delete(f"/channels/{channel}")).status_code

    answers, deleted = await asyncio.gather(flood(), delete())

    assert deleted == 204
    assert set(answers) <= {204, 401}
    assert answers == sorted(answers)
    open_ones = "select count(*) from whatsapp_connection_incidents where channel_id = $1::text::uuid"
    assert await rig.connection.fetchval(open_ones + " and resolved_at is null", channel) == 0


async def test_paused_and_resumed_while_webhooks_arrive_ends_as_the_last_word(rig: Rig) -> None:
    instance = f"loja-{next(rig.numbers)}"
    channel = await rig.z.channel(instance)
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("open"))

    async def flood() -> set[int]:
        return {
            await rig.z.post(channel, evolution.update(state)) for state in ("open", "close", *("open",) * 40)
        }

    async def switch() -> set[int]:
        return {
            (await rig.z.client.post(f"/channels/{channel}/{word}")).status_code
            for word in ("pause", "resume") * 10
        }

    flooded, *switched = await asyncio.gather(flood(), switch(), switch())

    assert flooded == {204}
    assert switched == [{200}, {200}]
    assert (await rig.z.client.post(f"/channels/{channel}/pause")).json()["monitoring"]["paused"] is True
    await rig.z.hear(channel, evolution.update("close", 401))
    assert (await rig.z.state(channel))["incident"] is None
    await rig.z.client.post(f"/channels/{channel}/resume")
    assert (await rig.z.incident(channel))["kind"] == "disconnected"


async def test_threshold_lowered_while_unhealthy_opens_the_incident_at_once(rig: Rig) -> None:
    instance, channel, _ = await rig.lone()
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("open"), evolution.update("connecting"))
    assert (await rig.z.state(channel))["incident"] is None

    body = {"metadata": {"heartbeat_threshold_minutes": 0}}
    answer = await rig.z.client.patch(f"/channels/{channel}", json=body)

    assert answer.json()["incident"]["kind"] == "connecting"


async def test_threshold_lowered_by_an_application_beside_us_opens_the_incident(rig: Rig) -> None:
    instance, channel, _ = await rig.lone()
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("open"), evolution.update("connecting"))

    await rig.connection.execute(
        """update notification_channels set metadata = '{"heartbeat_threshold_minutes": 0}'
           where id = $1::text::uuid""",
        channel,
    )

    assert (await rig.z.incident(channel))["kind"] == "connecting"


async def test_row_that_is_refused_is_503_and_never_500(dsn: str, admin: Connection) -> None:
    async with zapwatch(dsn) as z:
        z.client._transport = httpx.ASGITransport(http_app(z.app), raise_app_exceptions=False)
        body = {"provider": "evolution_api", "base_url": "http://127.0.0.1:9/x", "api_key": "k"}
        hook = (await z.client.post("/gateways", json=body)).json()["webhook_url"]
        channel = await z.channel(api_url="http://127.0.0.1:9/x")
        for table in ("events", "quarantine", "unknown_instances"):
            await admin.execute(f"alter table zapwatch_{table} add constraint no check (false) not valid")

        answers = [
            await z.client.post(z.hooks[channel], content=written(Evolution().update("open"))),
            await z.client.post(hook, content=written(Evolution("stranger").update("open"))),
            await z.client.post(hook, content=b"{"),
        ]

        assert [(answer.status_code, "Retry-After" in answer.headers) for answer in answers] == [
            (503, True)
        ] * 3
        assert 'code="500"' not in (await z.client.get("/metrics")).text


async def test_database_away_is_503_and_counted_as_such(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()
        await z.hear(channel, Evolution().update("open"))
        away = asyncpg.create_pool("postgresql://nobody@/nothing?host=/does/not/exist", min_size=0)
        async with away, client_of(replace(z.app, pool=away), None) as client:
            answer = await client.post(z.hooks[channel], content=b"{")

        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        assert 'zapwatch_webhook_answers_total{code="503"' in (await z.client.get("/metrics")).text


async def test_channel_whose_row_somebody_holds_keeps_no_other_waiting(
    dsn: str, connection: Connection
) -> None:
    """An application beside us, or a psql left open, in the midst of a transaction on one channel."""
    async with zapwatch(dsn) as z:
        held, free = await z.channel(), await z.channel("loja-02")
        other = Evolution("loja-02")
        async with connection.transaction():
            await connection.execute(
                """update notification_channels set metadata = '{"x": 1}' where id = $1::text::uuid""", held
            )
            waiting = asyncio.create_task(z.post(held, Evolution().update("open")))
            await let_tasks_run()
            began = clocks.monotonic()
            answers = await asyncio.gather(*(z.post(free, other.update("open")) for _ in range(3)))
            took = clocks.monotonic() - began

        assert answers == [204] * 3
        assert took < 3
        assert await waiting in {204, 503}


async def test_service_is_well_after_all_this(rig: Rig) -> None:
    answers = [await rig.z.client.get(path) for path in ("/healthz", "/readyz", "/metrics")]

    assert [answer.status_code for answer in answers] == [200] * 3
    failed = [line for line in answers[2].text.splitlines() if 'code="5' in line]
    assert failed == []
    assert KEY.hex() not in answers[2].text
