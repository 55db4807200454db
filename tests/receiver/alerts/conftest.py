"""For each test one replica of what tells people, on a database of its own."""

from collections.abc import AsyncIterator

import pytest

from db.connection.types import Connection
from tests.receiver.alerts.desk import Desk, open_desk
from tests.receiver.alerts.host import Host


@pytest.fixture
async def desk(dsn: str, connection: Connection) -> AsyncIterator[Desk]:
    """The replica; a test drives its rounds."""
    async with open_desk(dsn, connection) as opened:
        yield opened


@pytest.fixture
async def host(dsn: str, connection: Connection) -> AsyncIterator[Host]:
    """A gateway of one tenant with three channels, and destinations of the tenant and of operators."""
    async with open_desk(dsn, connection) as desk:
        id = await connection.fetchval(
            "insert into zapwatch_gateways (provider, base_url, name, state) "
            "values ('wapi', 'http://w.test', 'Casa', 'up') returning id"
        )
        yield Host(desk, id)
