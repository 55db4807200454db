"""What one process changes all others forget at once, and what they have missed as soon as they can know."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from db.connection.pool import connect, open_pool
from db.connection.types import Connection
from db.registry.channels import remove_channel
from db.registry.gateways import register_gateway
from db.vault import Vault
from receiver.http.auth import Tokens
from receiver.sandbox import open_fleet
from tests.factories import Evolution
from tests.support.command import zapwatch as command
from tests.support.eventually import let_tasks_run
from tests.support.gateway import gateway
from tests.support.service import KEY, Zapwatch, zapwatch

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


@asynccontextmanager
async def noticed(dsn: str) -> AsyncIterator[list[str]]:
    """Yield the notices that any process sends while the body runs, in their order."""
    notices: list[str] = []
    connection = await connect(dsn)
    try:
        await connection.add_listener("zapwatch_forget", lambda *notice: notices.append(str(notice[-1])))
        yield notices
    finally:
        await connection.close()


async def heard(notices: list[str]) -> list[str]:
    """Return the notices, for `until`."""
    return notices


async def test_only_a_move_to_another_gateway_and_a_deletion_are_noticed(
    dsn: str, connection: Connection
) -> None:
    async with zapwatch(dsn) as z, noticed(dsn) as notices:
        channel = await z.channel(provider="wapi", api_url="http://wapi.example")
        gateway = {"provider": "wapi", "base_url": "http://wapi.example", "api_key": "k"}
        assert (await z.client.post("/gateways", json=gateway)).status_code == 201
        for change in ({"name": "Centro"}, {"metadata": {"flap_count": 4}}, {"api_key": "other"}):
            assert (await z.client.patch(f"/channels/{channel}", json=change)).status_code == 200
        for verb in ("pause", "resume"):
            assert (await z.client.post(f"/channels/{channel}/{verb}")).status_code == 200
        # A W-API gateway has no version, so reading it finds nothing new.
        left = "select count(*) from zapwatch_gateways where version_due_at is not null"
        await z.until(lambda: connection.fetchval(left), lambda count: count == 0)

        moved = await z.client.patch(f"/channels/{channel}", json={"api_url": ELSEWHERE})
        await z.until(lambda: connection.fetchval(left), lambda count: count == 0)
        deleted = await z.client.delete(f"/channels/{channel}")

        assert (moved.status_code, deleted.status_code) == (200, 204)
        await z.until(lambda: heard(notices), lambda them: len(them) >= 2)
        assert notices == [channel, channel]


async def test_version_is_noticed_only_when_it_is_another_one_than_before(
    dsn: str, connection: Connection
) -> None:
    read = "select version from zapwatch_gateways where version_due_at > now() + interval '1 hour'"
    async with gateway("2.3.7") as base_url, zapwatch(dsn) as z, noticed(dsn) as notices:
        channel = await z.channel(api_url=base_url)
        identity = str(await connection.fetchval("select id from zapwatch_gateways"))
        await z.until(lambda: connection.fetchval(read), lambda version: version == "2.3.7")

        for again in ("version_due_at = now()", "version_due_at = now(), version = '2.3.6'"):
            await connection.execute(f"update zapwatch_gateways set {again}")
            await z.until(lambda: connection.fetchval(read), lambda version: version == "2.3.7")
        await z.until(lambda: heard(notices), lambda them: len(them) >= 2)
        assert (await z.client.delete(f"/channels/{channel}")).status_code == 204

        await z.until(lambda: heard(notices), lambda them: channel in them)
        assert notices == [identity, identity, channel]


async def test_import_that_registers_nothing_is_not_noticed(dsn: str) -> None:
    async with open_fleet() as fleet, zapwatch(dsn) as z, noticed(dsn) as notices:
        host = await fleet.evolution()
        host.add("loja-01")
        registered = {"provider": "evolution_api", "base_url": host.url, "api_key": host.key}
        identity = (await z.client.post("/gateways", json=registered)).json()["id"]
        await z.until(lambda: heard(notices), lambda them: len(them) == 1)  # of its version

        new = [(await z.client.post(f"/gateways/{identity}/import")).json()["new"] for _ in range(2)]
        channel = (await z.get("/channels"))["items"][0]["channel_id"]
        assert (await z.client.delete(f"/channels/{channel}")).status_code == 204

        assert new == [1, 0]
        await z.until(lambda: heard(notices), lambda them: channel in them)
        assert notices == [identity, identity, channel]


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


async def test_what_was_read_while_something_else_was_forgotten_is_remembered(
    dsn: str, connection: Connection
) -> None:
    async with await open_pool(dsn) as pool:
        tokens = Tokens(pool)
        _, token = await register_gateway(connection, Vault([KEY]), "wapi", "http://wapi.example", "k", None)
        reading = asyncio.create_task(tokens.resolve("wapi", token))
        await let_tasks_run(3)  # it, and the lookup that it shares with others

        tokens.forget(uuid4())
        found = await reading

        assert found is not None
        assert tokens.known("wapi", token) == found


async def test_process_forgets_what_it_changed_once_and_what_another_changed_as_well(
    dsn: str, connection: Connection
) -> None:
    async with await open_pool(dsn) as pool:
        tokens = Tokens(pool)
        gateway_id, token = await register_gateway(
            connection, Vault([KEY]), "wapi", "http://wapi.example", "k", None
        )
        await tokens.resolve("wapi", token)

        await tokens.forget_everywhere(gateway_id)
        forgotten = tokens.known("wapi", token)
        found = await tokens.resolve("wapi", token)
        tokens.on_notice(gateway_id)
        after_its_own_notice = tokens.known("wapi", token)
        tokens.on_notice(gateway_id)
        after_anothers = tokens.known("wapi", token)

        assert (forgotten, after_anothers) == (None, None)
        assert after_its_own_notice == found is not None


async def test_notices_that_may_have_been_missed_hide_no_later_one(dsn: str, connection: Connection) -> None:
    async with await open_pool(dsn) as pool:
        tokens = Tokens(pool)
        gateway_id, token = await register_gateway(
            connection, Vault([KEY]), "wapi", "http://wapi.example", "k", None
        )
        await tokens.forget_everywhere(gateway_id)
        tokens.forget_all()
        assert await tokens.resolve("wapi", token) is not None

        tokens.on_notice(gateway_id)

        assert tokens.known("wapi", token) is None
