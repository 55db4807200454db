"""Very many changes of state to one destination delay no other tenant's incident."""

import asyncio
from datetime import UTC, datetime

from db.connection.types import Connection
from receiver.jobs.loop import LoopRunner
from tests.receiver.alerts.desk import open_desk
from tests.support.eventually import eventually

MANY = 10_000
CHANNELS = """
with channel as (
  insert into notification_channels (tenant_id, provider)
  select $1, 'wapi' from generate_series(1, $2::int)
  returning id
), registered as (
  insert into zapwatch_channels (channel_id, tenant_id, provider, instance)
  select id, $1, 'wapi', id::text from channel
)
insert into zapwatch_states (channel_id, tenant_id) select id, $1 from channel
"""
CHANGES = """
insert into zapwatch_changes (channel_id, tenant_id, event, previous_state, state, since, version)
select channel_id, tenant_id, 'channel.state_changed', 'open', 'error', now(), 1
from zapwatch_channels where tenant_id = $1
"""


async def test_ten_thousand_changes_of_state_delay_no_logout_of_another_tenant(
    dsn: str, connection: Connection
) -> None:
    async with open_desk(dsn, connection) as desk:
        busy, other = await desk.tenant(), await desk.tenant()
        await desk.destination(busy, "queue", events=["channel.state_changed"])
        await desk.destination(other, "ana")
        lost = await desk.channel(other, "Praia")
        await connection.execute(CHANNELS, busy, MANY)
        await connection.execute(CHANGES, busy)
        loops = [desk.routing.loop(), desk.dispatcher.loop()]
        running = [asyncio.create_task(LoopRunner().run(loop)) for loop in loops]
        left = "select count(*) from zapwatch_changes"
        await eventually(lambda: connection.fetchval(left), lambda count: count < MANY / 2, within=60)

        began = datetime.now(UTC)
        await desk.open(lost)
        await eventually(lambda: "ana" in {name for name, _ in desk.sink.told}, within=30)
        took = (datetime.now(UTC) - began).total_seconds()
        for task in running:
            task.cancel()
        await asyncio.wait(running)

    assert took < 5
