"""Whose a webhook is, and what it is answered with."""

import asyncio
import os
import signal
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from db.connection.types import Connection
from tests.conftest import connected
from tests.factories import Evolution
from tests.support.gateway import gateway
from tests.support.service import Zapwatch, time, zapwatch


async def gateway_hook(z: Zapwatch, base_url: str = "http://evo.example.com") -> tuple[str, str]:
    """Register a gateway; return its id and webhook address."""
    body = {"provider": "evolution_api", "base_url": base_url, "api_key": "key"}
    answer = await z.client.post("/gateways", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"], answer.json()["webhook_url"]


async def test_gateway_token_finds_the_channel_by_the_instance_in_the_body(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        _, hook = await gateway_hook(z)
        one = await z.channel("one", api_url="http://evo.example.com/")
        two = await z.channel("two", api_url="http://evo.example.com")

        await z.hear(hook, Evolution("two").update("open"))

        assert (await z.state(one))["state"] == "unknown"
        assert (await z.state(two))["state"] == "open"


async def test_unknown_instance_is_noted_in_one_row(dsn: str, connection: Connection) -> None:
    async with zapwatch(dsn) as z:
        _, hook = await gateway_hook(z)
        stranger = Evolution("stranger")

        answers = [await z.post(hook, stranger.update(state)) for state in ("connecting", "open", "open")]

        assert answers == [202, 202, 202]
        (row,) = await connection.fetch("select * from zapwatch_unknown_instances")
        assert (row["instance"], row["count"], row["last_state"]) == ("stranger", 3, "open")
        assert row["first_at"] < row["last_at"]


async def test_channel_registered_after_its_first_events_is_found_at_once(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        _, hook = await gateway_hook(z)
        instance = Evolution("late")
        assert await z.post(hook, instance.update("open")) == 202

        channel = await z.channel("late", api_url="http://evo.example.com")
        await z.hear(hook, instance.update("open"))

        assert (await z.state(channel))["state"] == "open"


async def test_channel_token_does_not_speak_for_another_channel(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        one = await z.channel("one", api_url="http://evo.example.com")
        two = await z.channel("two", api_url="http://evo.example.com")
        await z.hear(one, Evolution("one").update("open"))

        status = await z.post(one, Evolution("two").update("close", 401))

        assert status == 202
        assert (await z.state(one))["state"] == "open"
        assert (await z.state(two))["state"] == "unknown"


@pytest.mark.parametrize("suffix", ["/connection-update", "/qrcode-updated", "/any/thing", "/"])
async def test_any_suffix_is_taken(dsn: str, suffix: str) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()

        status = await z.post(channel, Evolution().update("open"), suffix)

        assert (status, (await z.state(channel))["state"]) == (204, "open")


@pytest.mark.parametrize("path", ["/webhooks/evolution_api/zw_nobody", "/webhooks/nobody/zw_nobody"])
async def test_unknown_token_or_provider_is_401_and_nothing_is_kept(
    dsn: str, connection: Connection, path: str
) -> None:
    async with zapwatch(dsn) as z:
        assert await z.post(path, b"not JSON") == 401

    assert await connection.fetchval("select count(*) from zapwatch_quarantine") == 0


async def test_token_of_another_provider_is_401(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()

        status = await z.post(z.hooks[channel].replace("evolution_api", "wapi"), b"{}")

        assert status == 401


async def test_deleted_channels_token_is_401_and_its_incident_ends_untold(
    dsn: str, connection: Connection
) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()
        instance = Evolution()
        await z.hear(channel, instance.update("open"), instance.update("close", 401))
        incident = await z.incident(channel)

        assert (await z.client.delete(f"/channels/{channel}")).status_code == 204

        assert await z.post(channel, instance.update("open")) == 401
        row = await connection.fetchrow("select * from whatsapp_connection_incidents")
        assert row is not None
        assert str(row["id"]) == incident["id"]
        assert row["resolved_at"] is not None
        assert orjson.loads(row["details"])["resolved"] == "channel_removed"
        assert await connection.fetchval("select count(*) from zapwatch_alerts where kind = 'resolved'") == 0


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("1.8.2", ("disconnected", "connection_lost", False)),
        ("2.3.7", ("disconnected", "connection_lost", False)),
        ("2.4.0-rc1", ("disconnected", "connection_lost", True)),
        ("3.0.0", ("disconnected", "connection_lost", True)),
    ],
)
async def test_408_means_what_the_gateways_version_makes_of_it(
    dsn: str, version: str, state: tuple[str, str, bool]
) -> None:
    async with zapwatch(dsn) as z, gateway(version) as base_url:
        channel = await z.channel(api_url=base_url, api_key="k")
        await z.until(lambda: z.get("/gateways"), lambda found: found["items"][0]["version"] == version)
        instance = Evolution()

        await z.hear(channel, instance.update("open"), instance.update("close", 408))

        assert await z.stands(channel) == state


async def test_live_traffic_of_an_open_channel_is_written_within_five_seconds(
    dsn: str, connection: Connection
) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()
        instance = Evolution()
        await z.hear(channel, instance.update("open"))
        before = (await z.state(channel))["last_event_at"]

        await z.hear(channel, instance.message())

        async with asyncio.timeout(5):
            after = await z.until(lambda: z.state(channel), lambda shown: shown["last_event_at"] != before)
        assert after["state"] == "open"
        assert await connection.fetchval("select count(*) from zapwatch_events") == 1


async def test_old_message_is_no_sign_of_life(dsn: str, silent_gateway: str) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel(api_url=silent_gateway, api_key="k")
        instance = Evolution()
        await z.hear(channel, instance.update("open"), instance.update("connecting"))
        before = await z.state(channel)

        await z.hear(channel, instance.message(timedelta(seconds=90)))
        unmoved = await z.state(channel)
        await z.hear(channel, instance.message())
        nudged = await z.state(channel)

        assert unmoved == before
        assert nudged["state"] == "connecting"
        assert nudged["next_check_at"] < before["next_check_at"]


async def test_locked_database_is_503_with_retry_after_and_204_afterwards(
    dsn: str, connection: Connection
) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()
        event = Evolution().update("close", 401)
        began = asyncio.get_running_loop().time()
        async with connection.transaction():
            await connection.execute("lock table zapwatch_states")

            async with connected(dsn) as other, other.transaction():
                await other.execute("lock table zapwatch_tokens")
                posted = asyncio.create_task(z.client.post(z.hooks[channel], json=event))
                await asyncio.wait([posted], timeout=4)
            answer = await posted

        # Whose token it is took most of the 5 s that its sender waits in all.
        assert asyncio.get_running_loop().time() - began < 7.5
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        await z.hear(channel, event)
        assert (await z.state(channel))["state"] == "disconnected"


async def test_webhook_is_taken_although_the_connections_kept_for_lookups_are_dead(
    dsn: str, connection: Connection
) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()
        idle = await connection.fetch(
            "select pid from pg_stat_activity"
            " where application_name = 'zapwatch' and datname = current_database()"
        )
        for row in idle:
            os.kill(row["pid"], signal.SIGSTOP)
        try:
            status = await z.post(channel, Evolution().update("open"))
        finally:
            for row in idle:
                os.kill(row["pid"], signal.SIGCONT)

        assert idle
        assert status == 204


async def test_same_event_a_hundred_times_at_once_is_one_row_and_one_change(
    dsn: str, connection: Connection
) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()
        event = Evolution().update("open")

        answers = await asyncio.gather(*(z.post(channel, event) for _ in range(100)))

        assert set(answers) == {204}
        (row,) = await z.events(channel)
        assert (row["count"], row["deliveries"]) == (1, 100)
        assert await connection.fetchval("select version from zapwatch_states") == 1


async def test_incident_on_old_evidence_opens_once_its_probe_does_not_say_open(dsn: str) -> None:
    # The answer must still be fresh when the next deadline fires, on a busy machine too.
    stale: dict[str, Any] = {"stale_after": timedelta(seconds=2), "retry_after": timedelta(minutes=1)}
    # It answers, but knows no instance: silence would be an incident of the whole gateway.
    async with gateway("2.3.6") as url, zapwatch(dsn, **stale) as z:
        known = {"api_url": url, "api_key": "k"}
        channel = await z.channel("waits", metadata={"heartbeat_threshold_minutes": 0.05}, **known)
        probed = await z.until(lambda: z.state(channel), lambda shown: shown["last_health_check"])
        instance = Evolution("waits")

        await z.hear(channel, instance.update("open"), instance.update("connecting"))

        assert (await z.incident(channel))["kind"] == "connecting"
        assert (await z.state(channel))["last_health_check"] > probed["last_health_check"]


async def test_channel_that_somebody_keeps_locked_delays_no_other_incident(
    dsn: str, connection: Connection
) -> None:
    async with zapwatch(dsn) as z:
        locked, free = await z.channel("locked"), await z.channel("free")
        one, other = Evolution("locked"), Evolution("free")
        await z.hear(locked, one.update("open"))
        await z.hear(free, other.update("open"))
        async with connection.transaction():
            await z.hear(locked, one.update("close", 401))
            await connection.execute(
                "select 1 from notification_channels where id = $1 for update", UUID(locked)
            )
            await z.hear(free, other.update("close", 401))

            opened = await z.incident(free)

            (incident,) = await z.incidents(free)
            late = time(incident["opened_at"]) - time(opened["started_at"])
            assert late < timedelta(seconds=4)
            assert (await z.state(locked))["incident"] is None
        assert (await z.incident(locked))["kind"] == "disconnected"
