"""The command line as somebody types it: exit codes, what is said where, and tables."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest

from db.connection.pool import open_pool
from db.connection.types import Connection, Pool
from db.embedded.server import run_embedded
from db.migrate import migrate
from db.registry.channels import ChannelSpec, register_channel
from db.registry.gateways import register_gateway
from db.registry.tokens import hash_token
from db.vault import Vault
from receiver.http.auth import Tokens
from tests.conftest import connected, reachable_folder
from tests.support.command import zapwatch

VAULT = Vault([bytes(32)])
KEY = base64.urlsafe_b64encode(bytes(32)).decode()


@pytest.fixture
def environ(dsn: str) -> dict[str, str]:
    return {"ZAPWATCH_DATABASE_URL": dsn, "ZAPWATCH_SECRET_KEYS": KEY}


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    async with await open_pool(dsn) as opened:
        yield opened


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder that the account of the embedded server can reach, also when the tests run as root."""
    with reachable_folder() as folder:
        yield folder / "data"


@pytest.mark.parametrize(
    "command", [["serve"], ["migrate"], ["channels"], ["incidents"], ["token", "create"]]
)
async def test_wrong_settings_are_all_named_on_stderr_and_nothing_starts(
    command: list[str], data_dir: Path
) -> None:
    said = await zapwatch(
        *command,
        ZAPWATCH_PORT="x",
        ZAPWATCH_WORKERS="0",
        ZAPWATCH_SECRET_KEYS="s3cret",
        ZAPWATCH_DATA_DIR=str(data_dir),
    )

    named = [line.split()[0] for line in said.err.splitlines()]
    assert (said.code, said.out) == (2, "")
    assert sorted(named) == ["ZAPWATCH_PORT", "ZAPWATCH_SECRET_KEYS", "ZAPWATCH_WORKERS"]
    assert "s3cret" not in said.err
    assert not list(data_dir.parent.iterdir())


async def test_serve_has_an_option_for_every_setting_and_none_for_a_secrets_value() -> None:
    said = await zapwatch("serve", "--help")

    for option in ("--port", "--data-dir", "--stale-after-seconds", "--database-url", "--secret-keys-file"):
        assert option in said.out
    for option in ("--secret-keys ", "--operator-token ", "--alert-url "):
        assert option not in said.out


async def test_migrate_prints_what_it_applied_and_then_that_all_is_up_to_date(empty_dsn: str) -> None:
    environ = {"ZAPWATCH_DATABASE_URL": empty_dsn, "ZAPWATCH_SECRET_KEYS": KEY}

    first, second = await zapwatch("migrate", **environ), await zapwatch("migrate", **environ)

    assert first.code == 0
    assert first.out.startswith("0001_")
    assert (second.code, second.out) == (0, "up to date\n")


async def test_embedded_database_is_used_whether_or_not_the_service_runs(data_dir: Path) -> None:
    environ = {"ZAPWATCH_DATA_DIR": str(data_dir)}

    first = await zapwatch("migrate", **environ)
    async with run_embedded(data_dir) as embedded:
        async with connected(embedded.dsn) as connection:
            await migrate(connection)
            await register_channel(connection, VAULT, ChannelSpec(provider="wapi", instance="ABC"))
        beside = await zapwatch("channels", "--json", **environ)
    alone = await zapwatch("channels", "--json", **environ)

    assert first.out.startswith("0001_")
    assert [item["instance"] for item in json.loads(beside.out)] == ["ABC"]
    assert json.loads(alone.out) == json.loads(beside.out)


async def test_database_without_migrations_is_said_in_words(empty_dsn: str) -> None:
    said = await zapwatch("channels", ZAPWATCH_DATABASE_URL=empty_dsn, ZAPWATCH_SECRET_KEYS=KEY)

    assert said.code == 1
    assert "zapwatch migrate" in said.err
    assert "Traceback" not in said.err


async def test_database_that_is_away_is_said_in_words_without_its_password(dsn: str) -> None:
    away = urlsplit(dsn)._replace(netloc="zapwatch:pass-word@", query="host=/does/not/exist").geturl()

    said = await zapwatch("incidents", ZAPWATCH_DATABASE_URL=away, ZAPWATCH_SECRET_KEYS=KEY)

    assert said.code == 1
    assert "can't be used" in said.err
    assert "Traceback" not in said.err
    assert "pass-word" not in said.err


async def test_channels_are_a_table_that_no_name_can_break(
    environ: dict[str, str], connection: Connection
) -> None:
    new = ChannelSpec(provider="wapi", instance="[red]ABC", name="\x1b[2J:smile:\nLoja")
    await register_channel(connection, VAULT, new)

    said = await zapwatch("channels", **environ)

    assert said.code == 0
    assert "[red]ABC" in said.out
    assert "?[2J:smile:?Loja" in said.out
    assert "unknown" in said.out
    assert "\x1b" not in said.out


async def test_channels_can_be_narrowed(environ: dict[str, str], connection: Connection) -> None:
    for instance in ("A", "B"):
        await register_channel(connection, VAULT, ChannelSpec(provider="wapi", instance=instance))
    await connection.execute(
        "update zapwatch_states s set state = 'open' from zapwatch_channels c"
        " where c.channel_id = s.channel_id and c.instance = 'A'"
    )

    by_state = await zapwatch("channels", "--state", "open", "--json", **environ)
    by_tenant = await zapwatch("channels", "--tenant", str(uuid4()), "--json", **environ)

    assert [item["instance"] for item in json.loads(by_state.out)] == ["A"]
    assert json.loads(by_tenant.out) == []


async def test_incidents_are_shown_newest_first(environ: dict[str, str], connection: Connection) -> None:
    channel_id, _ = await register_channel(connection, VAULT, ChannelSpec(provider="wapi", instance="ABC"))
    for kind, days, resolved in (("error", 2, True), ("disconnected", 1, False)):
        await connection.execute(
            "insert into whatsapp_connection_incidents"
            " (tenant_id, channel_id, provider, kind, started_at, resolved_at)"
            " select tenant_id, id, provider, $2, now() - make_interval(days => $3),"
            " case when $4 then now() end"
            " from notification_channels where id = $1",
            channel_id,
            kind,
            days,
            resolved,
        )

    table = await zapwatch("incidents", **environ)
    listed = await zapwatch("incidents", "--json", **environ)
    unresolved = await zapwatch("incidents", "--status", "open", "--json", **environ)

    assert table.out.index("disconnected") < table.out.index("error")
    assert [item["kind"] for item in json.loads(listed.out)] == ["disconnected", "error"]
    assert [item["kind"] for item in json.loads(unresolved.out)] == ["disconnected"]


async def test_operator_token_is_printed_once_and_kept_as_its_hash(
    environ: dict[str, str], connection: Connection
) -> None:
    tenant_id = await connection.fetchval("insert into tenants (name) values ('Loja') returning id")

    said = await zapwatch("token", "create", "--name", "Ana", "--tenant", str(tenant_id), **environ)

    row = await connection.fetchrow("select hash, kind, tenant_id, name from zapwatch_tokens")
    assert said.code == 0
    assert row is not None
    assert tuple(row) == (hash_token(said.out.strip()), "operator", tenant_id, "Ana")


async def test_new_webhook_address_of_a_channel_works(
    environ: dict[str, str], connection: Connection, pool: Pool
) -> None:
    new = ChannelSpec(provider="wapi", instance="ABC")
    channel_id, old = await register_channel(connection, VAULT, new)

    said = await zapwatch(
        "token", "create", "--channel", str(channel_id), "--revoke-others",
        ZAPWATCH_PUBLIC_URL="https://watch.example", **environ,
    )  # fmt: skip

    token = said.out.strip().removeprefix("https://watch.example/webhooks/wapi/")
    target = await Tokens(pool).resolve("wapi", token)
    assert target is not None
    assert target.channel_id == channel_id
    assert await Tokens(pool).resolve("wapi", old) is None


async def test_new_webhook_address_of_a_gateway_works_beside_the_old(
    environ: dict[str, str], connection: Connection, pool: Pool
) -> None:
    gateway_id, old = await register_gateway(connection, VAULT, "waha", "http://waha.example", "k", None)

    said = await zapwatch("token", "create", "--gateway", str(gateway_id), **environ)

    found = [
        await Tokens(pool).resolve("waha", token) for token in (said.out.strip().rpartition("/")[2], old)
    ]
    assert [target.gateway_id for target in found if target is not None] == [gateway_id] * 2


@pytest.mark.parametrize(
    "arguments",
    [["--channel", str(UUID(int=1))], ["--gateway", str(UUID(int=1))], ["--tenant", str(UUID(int=1))]],
)
async def test_token_for_nothing_is_refused(environ: dict[str, str], arguments: list[str]) -> None:
    said = await zapwatch("token", "create", *arguments, **environ)

    assert (said.code, said.out) == (1, "")
    assert "nothing with this id" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--channel", str(UUID(int=1)), "--gateway", str(UUID(int=2))],
        ["--channel", str(UUID(int=1)), "--name", "x"],
        ["--revoke-others"],
        ["--channel", "x"],
    ],
)
async def test_token_options_that_contradict_are_refused(
    environ: dict[str, str], arguments: list[str]
) -> None:
    said = await zapwatch("token", "create", *arguments, **environ)

    assert (said.code, said.out) == (2, "")
