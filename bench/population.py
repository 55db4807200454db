"""Fills a database with channels by the million: one made by the service's own code, and copies of its rows.

Probes fall due evenly over `CYCLE` from a moment on, as after a long time of probing. The copies' keys
can't be opened: nobody calls their gateways.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from db.connection.types import Connection
from db.ingest.apply import apply
from db.ingest.entry import Entry, Source
from db.registry.channels import ChannelSpec, register_channel
from db.vault import KEY_BYTES, Vault
from receiver.service.composition import installation_rules
from receiver.settings import Settings
from statemachine.model import Trigger
from statemachine.signals import Answered

CYCLE: Final = Settings().stale_after
"""A healthy channel is probed this often."""
BYTES_EACH: Final = 4000
"""Of disk that a channel takes at most, with its indexes and the log of writing it."""
DEADLINES: Final = 0.02
"""Of channels that have a deadline, within one `CYCLE`."""
CROWD: Final = 100
"""The first gateway has at least so many channels; with very many, a hundredth of all."""
STATEMENTS: Final = (
    """
    create temp table made on commit drop as
    select gen_random_uuid() as id, n,
      case when n <= greatest({channels} / 100, {crowd}) then 1 else n % {gateways} + 1 end as gateway
    from generate_series(1, {channels}) n
    """,
    """
    insert into zapwatch_gateways (provider, base_url, version_due_at)
    select provider, 'http://evo-' || n || '.example', null
    from zapwatch_gateways, generate_series(1, {gateways}) n
    """,
    """
    insert into notification_channels
      (id, tenant_id, provider, connection_status, metadata, last_connected_at)
    select made.id, t.tenant_id, t.provider, t.connection_status, t.metadata, t.last_connected_at
    from notification_channels t, made
    """,
    """
    insert into zapwatch_channels (channel_id, tenant_id, gateway_id, provider, instance, api_key)
    select made.id, t.tenant_id, g.id, t.provider, 'loja-' || made.n, t.api_key
    from zapwatch_channels t, made
    join zapwatch_gateways g on g.base_url = 'http://evo-' || made.gateway || '.example'
    """,
    """
    insert into zapwatch_states
      (channel_id, tenant_id, gateway_id, version, state, since, last_event_at, fresh_at, probed_at, memory,
       probe_due_at, due_at)
    select c.channel_id, t.tenant_id, c.gateway_id, t.version, t.state, t.since, t.last_event_at, t.fresh_at,
      t.probed_at, t.memory, '{began_at}'::timestamptz + random() * interval '{cycle} s',
      case when random() < {deadlines} then '{began_at}'::timestamptz + random() * interval '{cycle} s' end
    from zapwatch_states t, zapwatch_channels c
    where c.instance like 'loja-%'
    """,
    """
    delete from notification_channels
    where id = (select channel_id from zapwatch_channels where instance = 'first')
    """,
    "delete from zapwatch_gateways where base_url = 'http://evo.example'",
)
UNPROBED: Final = """
with keyless as (update zapwatch_channels set api_key = null)
update zapwatch_states set probe_due_at = null, due_at = null
"""
TOKENS: Final = """
insert into zapwatch_tokens (hash, kind, channel_id)
select sha256(convert_to('zw_' || channel_id, 'utf8')), 'channel', channel_id from zapwatch_channels
"""


@dataclass(frozen=True, slots=True)
class Population:
    """So many channels on so many gateways, whose probes fall due over `CYCLE` from `began_at` on."""

    channels: int
    gateways: int
    began_at: datetime

    def __str__(self) -> str:
        return f"{self.channels:,} channels on {self.gateways:,} gateways"


async def populate(connection: Connection, channels: int, gateways: int) -> Population:
    """Put so many channels in place of all that are there."""
    now = datetime.now(UTC)
    values = {
        "channels": channels,
        "gateways": gateways,
        "crowd": CROWD,
        "deadlines": DEADLINES,
        "began_at": now,
        "cycle": CYCLE / timedelta(seconds=1),
    }
    await connection.execute("truncate tenants, zapwatch_gateways cascade")
    async with connection.transaction():
        await _first(connection, now)
        for statement in STATEMENTS:
            await connection.execute(statement.format(**values))
    await connection.execute("vacuum analyze")
    return Population(channels, gateways, now)


async def open_to_webhooks(connection: Connection) -> None:
    """Give each channel the webhook token `zw_` and its id; none is probed, so only webhooks count."""
    await connection.execute(UNPROBED)
    await connection.execute(TOKENS)
    await connection.execute("vacuum analyze")


async def _first(connection: Connection, now: datetime) -> None:
    new = ChannelSpec(
        provider="evolution_api", instance="first", api_url="http://evo.example", api_key="B" * 36
    )
    channel_id, _ = await register_channel(connection, Vault([bytes(KEY_BYTES)]), new)
    answer = Answered(now, now, 0, Trigger.OPENED)
    await apply(
        connection, [Entry(channel_id, Source.PROBE, "probe", now, answer)], installation_rules(Settings())
    )
