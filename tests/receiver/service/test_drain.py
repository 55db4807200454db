"""What a service that stops leaves behind: nothing that another replica would have to wait for."""

from uuid import UUID

from db.connection.types import Connection
from tests.conftest import connected
from tests.factories import Evolution
from tests.support.service import zapwatch

CLAIMED = "select count(*) from zapwatch_states where probe_claimed_until > now() or claimed_until > now()"


async def test_probes_under_way_are_given_back(dsn: str, connection: Connection, silent_gateway: str) -> None:
    async with zapwatch(dsn) as z:
        for n in range(3):
            await z.channel(f"loja-{n}", api_url=silent_gateway, api_key="k")
        await z.until(lambda: connection.fetchval(CLAIMED), lambda claimed: claimed == 3)

    assert await connection.fetchval(CLAIMED) == 0


async def test_deadlines_under_way_are_given_back(dsn: str, connection: Connection) -> None:
    async with connected(dsn) as application, application.transaction():
        async with zapwatch(dsn) as z:
            channel = await z.channel()
            await z.hear(channel, Evolution().update("open"), Evolution().update("close", 401))
            await application.execute(
                "select 1 from notification_channels where id = $1 for update", UUID(channel)
            )
            await z.until(lambda: connection.fetchval(CLAIMED), lambda claimed: claimed == 1)

        assert await connection.fetchval(CLAIMED) == 0


async def test_live_traffic_that_was_only_noted_is_written(dsn: str, connection: Connection) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()
        await z.hear(channel, Evolution().update("open"))
        before = await connection.fetchval("select fresh_at from zapwatch_states")
        await z.hear(channel, Evolution().message())

    assert await connection.fetchval("select fresh_at from zapwatch_states") > before
