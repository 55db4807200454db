"""Who asks: tokens are found by their hash, remembered for a while, and forgotten when told."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from db.connection.pool import open_pool
from db.connection.types import Connection, Pool
from db.registry.channels import ChannelSpec, register_channel, remove_channel
from db.registry.gateways import register_gateway
from db.registry.tokens import create_channel_token, create_operator_token, hash_token, make_token
from db.vault import Vault
from receiver.http.auth import Tokens, first_token
from receiver.settings import Settings
from tests.receiver.conftest import Api, client_of

VAULT = Vault([bytes(32)])


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    async with await open_pool(dsn) as opened:
        yield opened


async def registered(connection: Connection, instance: str = "loja") -> tuple[UUID, str]:
    new = ChannelSpec(provider="evolution_api", instance=instance, api_url="http://evo.example")
    return await register_channel(connection, VAULT, new)


def test_tokens_are_long_marked_and_never_the_same() -> None:
    tokens = {make_token() for _ in range(100)}

    assert len(tokens) == 100
    assert all(token.startswith("zw_") and len(token) == 46 for token in tokens)


@pytest.mark.parametrize("token", ["", "\ud800", "\0", "x" * 100_000])
async def test_odd_token_is_unknown(pool: Pool, token: str) -> None:
    assert await Tokens(pool).resolve("evolution_api", token) is None


async def test_token_of_a_channel_names_channel_gateway_and_tenant(
    pool: Pool, connection: Connection
) -> None:
    channel_id, token = await registered(connection)
    await connection.execute("update zapwatch_gateways set version = '2.3.7'")

    target = await Tokens(pool).resolve("evolution_api", token)

    row = await connection.fetchrow("select tenant_id, gateway_id from zapwatch_channels")
    assert target is not None
    assert row is not None
    assert (target.kind, target.channel_id, target.instance) == ("channel", channel_id, "loja")
    assert (target.tenant_id, target.gateway_id) == (row["tenant_id"], row["gateway_id"])
    assert (target.provider, target.version) == ("evolution_api", "2.3.7")
    assert target.token_hash == hash_token(token)


async def test_token_on_the_path_of_another_provider_is_unknown(pool: Pool, connection: Connection) -> None:
    tokens = Tokens(pool)
    _, token = await registered(connection)
    await tokens.resolve("evolution_api", token)

    assert await tokens.resolve("wapi", token) is None
    assert await Tokens(pool).resolve("wapi", token) is None


async def test_operator_token_is_no_webhook_token(pool: Pool, connection: Connection) -> None:
    token = await create_operator_token(connection)

    assert await Tokens(pool).resolve("evolution_api", token) is None


async def test_found_token_is_remembered_until_it_is_forgotten(pool: Pool, connection: Connection) -> None:
    tokens = Tokens(pool)
    channel_id, token = await registered(connection)
    found = await tokens.resolve("evolution_api", token)
    assert found is not None
    await remove_channel(connection, channel_id, None)

    remembered = await tokens.resolve("evolution_api", token)
    tokens.forget(uuid4())
    kept = await tokens.resolve("evolution_api", token)
    tokens.forget(channel_id)

    assert remembered == kept == found
    assert await tokens.resolve("evolution_api", token) is None


async def test_forgetting_a_gateway_forgets_its_channels(pool: Pool, connection: Connection) -> None:
    tokens = Tokens(pool)
    channel_id, token = await registered(connection)
    target = await tokens.resolve("evolution_api", token)
    assert target is not None
    assert await tokens.channel_of(target.gateway_id, "loja") is not None
    await remove_channel(connection, channel_id, None)

    tokens.forget(target.gateway_id)

    assert await tokens.resolve("evolution_api", token) is None
    assert await tokens.channel_of(target.gateway_id, "loja") is None


async def test_memory_ends_after_its_time(pool: Pool, connection: Connection) -> None:
    clock = Clock()
    tokens = Tokens(pool, known_for=timedelta(seconds=30), clock=clock)
    channel_id, token = await registered(connection)
    await tokens.resolve("evolution_api", token)
    await remove_channel(connection, channel_id, None)

    clock.now = 29.9
    before = await tokens.resolve("evolution_api", token)
    clock.now = 30.0
    after = await tokens.resolve("evolution_api", token)

    assert before is not None
    assert after is None


async def test_memory_is_bounded_and_the_oldest_goes_first(pool: Pool, connection: Connection) -> None:
    tokens = Tokens(pool, known_at_most=2)
    made = [await registered(connection, f"loja-{number}") for number in range(3)]
    for _, token in made:
        await tokens.resolve("evolution_api", token)
    for channel_id, _ in made:
        await remove_channel(connection, channel_id, None)

    known = [await tokens.resolve("evolution_api", token) is not None for _, token in made]

    assert known == [False, True, True]


async def test_what_was_not_found_is_looked_up_again(pool: Pool, connection: Connection) -> None:
    tokens = Tokens(pool)
    gateway_id, gateway_token = await register_gateway(
        connection, VAULT, "evolution_api", "http://evo.example", "k", None
    )
    assert await tokens.resolve("evolution_api", gateway_token) is not None
    assert await tokens.channel_of(gateway_id, "loja") is None

    channel_id, _ = await registered(connection)

    found = await tokens.channel_of(gateway_id, "loja")
    assert found is not None
    assert found.channel_id == channel_id


@pytest.mark.parametrize("instance", ["", "a\0b", "\ud800", "x" * 100_000])
async def test_odd_instance_is_unknown(pool: Pool, instance: str) -> None:
    assert await Tokens(pool).channel_of(uuid4(), instance) is None


async def test_new_webhook_token_leaves_the_old_one_unless_told(pool: Pool, connection: Connection) -> None:
    channel_id, first = await registered(connection)

    second = await create_channel_token(connection, channel_id, revoke_others=False)
    both = [await Tokens(pool).resolve("evolution_api", token) is not None for token in (first, second)]
    third = await create_channel_token(connection, channel_id, revoke_others=True)
    last = [
        await Tokens(pool).resolve("evolution_api", token) is not None for token in (first, second, third)
    ]

    assert both == [True, True]
    assert last == [False, False, True]


async def test_first_operator_token_is_made_once(connection: Connection) -> None:
    first = await first_token(connection, Settings())
    second = await first_token(connection, Settings())

    hashes = await connection.fetch("select hash from zapwatch_tokens")
    assert first is not None
    assert second is None
    assert [row["hash"] for row in hashes] == [hash_token(first)]


async def test_no_first_token_when_one_is_set(connection: Connection) -> None:
    assert await first_token(connection, Settings(operator_token="operator-token-0123")) is None
    assert await connection.fetchval("select count(*) from zapwatch_tokens") == 0


async def test_token_of_the_settings_is_an_operators(api: Api) -> None:
    app = replace(api.app, settings=Settings(operator_token="operator-token-0123"))

    async with (
        client_of(app, "operator-token-0123") as right,
        client_of(app, "operator-token-0124") as wrong,
    ):
        answers = [(await client.get("/channels")).status_code for client in (right, wrong)]

    assert answers == [200, 401]


async def test_scheme_is_read_in_any_case(api: Api) -> None:
    header = api.client.headers["Authorization"].replace("Bearer", "bEARER")

    answer = await api.client.get("/channels", headers={"Authorization": header})

    assert answer.status_code == 200
