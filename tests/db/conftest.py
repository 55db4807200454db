"""A database that another application made, owned by its ordinary role."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from db.connection.types import Connection
from tests.conftest import Server, connected

ADOPTED = Path(__file__).with_name("adopted.sql").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
async def clinic(server: Server, template: str) -> str:
    """The name of a role that may do nothing but own; `template` has made the roles that it may not make."""
    async with connected(server.admin_dsn("postgres")) as admin:
        await admin.execute("create role clinic login password 'clinic' nobypassrls nocreaterole nosuperuser")
    return "clinic"


@pytest.fixture
async def adopted_dsn(server: Server, clinic: str) -> AsyncIterator[str]:
    """The other application's database, not yet migrated, as its owner sees it."""
    async with server.database(owner=clinic) as name:
        dsn = urlsplit(server.dsn(name))._replace(netloc=f"{clinic}:{clinic}@").geturl()
        async with connected(dsn) as connection:
            await connection.execute(ADOPTED)
        yield dsn


async def add_tenant(connection: Connection, name: str = "Loja") -> UUID:
    """Insert a tenant and return its id."""
    tenant: UUID = await connection.fetchval("insert into tenants (name) values ($1) returning id", name)
    return tenant


async def add_channel(connection: Connection, tenant: UUID | None = None) -> UUID:
    """Insert a channel, of a new tenant unless one is given, with its state, and return its id."""
    tenant = tenant or await add_tenant(connection)
    channel: UUID = await connection.fetchval(
        "insert into notification_channels (tenant_id, provider) values ($1, 'wapi') returning id", tenant
    )
    await connection.execute(
        "insert into zapwatch_states (channel_id, tenant_id) values ($1, $2)", channel, tenant
    )
    return channel
