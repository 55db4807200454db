"""For each test one replica of what tells people, on a database of its own."""

from collections.abc import AsyncIterator

import pytest

from db.connection.types import Connection
from tests.receiver.alerts.desk import Desk, open_desk


@pytest.fixture
async def desk(dsn: str, connection: Connection) -> AsyncIterator[Desk]:
    """The replica; a test drives its rounds."""
    async with open_desk(dsn, connection) as opened:
        yield opened
