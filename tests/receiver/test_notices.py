"""What one process changes all others forget at once, and what they have missed as soon as they can know."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest

from db.connections import Connection
from db.pool import open_pool
from db.registry import register_gateway, remove_channel
from db.vault import Vault
from receiver.auth import Tokens
from tests.eventually import let_tasks_run
from tests.factories import Evolution
from tests.receiver.service import KEY, Zapwatch, zapwatch
from tests.test_cli import zapwatch as command

LONG_BEFORE_IT_ENDS_BY_ITSELF = 15
"""Seconds in which something must be forgotten that is otherwise remembered for 30."""
ELSEWHERE = "http://elsewhere.example"


@dataclass
class Replicas:
    """Two services on one database."""

    one: Zapwatch
    other: Zapwatch
    connection: Connection

    async def channel(self, instance: str = "loja-01") -> tuple[str, str]:
        """Return the id and the webhook address of a channel that both services remember."""
        channel = await self.one.channel(instance)
        hook = self.one.hooks[channel]
        for service in (self.one, self.other):
            await service.hear(hook, Evolution(instance).update("open"))
        return channel, hook

    async def other_refuses(self, hook: str, instance: str = "loja-01") -> None:
        """Wait until the other service doesn't know this address any more."""
        event = Evolution(instance).update("open")
        await self.other.until(
            lambda: self.other.post(hook, event), lambda status: status == 401, LONG_BEFORE_IT_ENDS_BY_ITSELF
        )


@pytest.fixture
async def replicas(dsn: str, connection: Connection) -> AsyncIterator[Replicas]:
    async with zapwatch(dsn) as one, zapwatch(dsn) as other:
        # Both listen before anything is changed.
        await one.until(lambda: listeners(connection), lambda count: count == 2)
        yield Replicas(one, other, connection)


async def listeners(connection: Connection) -> int:
    """Return how many sessions wait for notices."""
    count: int = await connection.fetchval(
        "select count(*) from pg_stat_activity where application_name = 'zapwatch notices'"
        " and datname = current_database() and query <> ''"
    )
    return count


async def test_deleted_channel_is_refused_by_the_other_service_at_once(replicas: Replicas) -> None:
    channel, hook = await replicas.channel()

    assert (await replicas.one.client.delete(f"/channels/{channel}")).status_code == 204

    await replicas.other_refuses(hook)


async def test_channel_that_moved_to_another_gateway_is_not_the_old_ones_any_more(replicas: Replicas) -> None:
    gateway = {"provider": "evolution_api", "base_url": "http://evo.example", "api_key": "k"}
    hook = (await replicas.one.client.post("/gateways", json=gateway)).json()["webhook_url"]
    channel = await replicas.one.channel(api_url="http://evo.example")
    event = Evolution().update("open")
    await replicas.other.hear(hook, event)

    moved = await replicas.one.client.patch(f"/channels/{channel}", json={"api_url": ELSEWHERE})

    assert moved.status_code == 200
    await replicas.other.until(
        lambda: replicas.other.post(hook, event),
        lambda status: status == 202,
        LONG_BEFORE_IT_ENDS_BY_ITSELF,
    )


async def test_revoked_address_is_refused_at_once(replicas: Replicas, dsn: str) -> None:
    channel, hook = await replicas.channel()

    said = await command(
        *("token", "create", "--channel", channel, "--revoke-others"), ZAPWATCH_DATABASE_URL=dsn,
        ZAPWATCH_SECRET_KEYS="A" * 43 + "=",
    )  # fmt: skip

    assert said.code == 0, said.err
    await replicas.other_refuses(hook)


async def test_service_that_was_cut_off_forgets_everything_and_listens_again(replicas: Replicas) -> None:
    missed, hook = await replicas.channel()
    later, later_hook = await replicas.channel("loja-02")
    await remove_channel(replicas.connection, UUID(missed), None)
    assert await replicas.other.post(hook, Evolution().update("open")) == 204

    await replicas.connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'zapwatch notices'"
        " and datname = current_database()"
    )

    await replicas.other_refuses(hook)
    await replicas.one.until(lambda: listeners(replicas.connection), lambda count: count == 2)
    assert await replicas.other.post(later_hook, Evolution("loja-02").update("open")) == 204
    assert (await replicas.one.client.delete(f"/channels/{later}")).status_code == 204
    await replicas.other_refuses(later_hook, "loja-02")


async def test_notice_that_nobody_can_read_makes_all_forget_everything(replicas: Replicas) -> None:
    channel, hook = await replicas.channel()
    await remove_channel(replicas.connection, UUID(channel), None)

    await replicas.connection.execute("select pg_notify('zapwatch_forget', 'everything')")

    await replicas.other_refuses(hook)


async def test_what_was_read_before_it_was_to_be_forgotten_is_not_remembered(
    dsn: str, connection: Connection
) -> None:
    async with await open_pool(dsn) as pool:
        tokens = Tokens(pool)
        gateway_id, token = await register_gateway(
            connection, Vault([KEY]), "wapi", "http://wapi.example", "k", None
        )
        await tokens.resolve("wapi", token)
        tokens.forget(gateway_id)
        reading = asyncio.create_task(tokens.resolve("wapi", token))
        await let_tasks_run(3)  # it, and the lookup that it shares with others

        tokens.forget(gateway_id)
        assert await reading is not None
        await connection.execute("update zapwatch_tokens set revoked_at = now()")

        assert await tokens.resolve("wapi", token) is None
