"""Webhooks and reads a second over HTTP, and what they cost, against a bare Starlette route."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.population import populate
from db.connections import Connection
from db.pool import connect

CHANNELS: Final = 100_000
GATEWAYS: Final = 100
CONNECTIONS: Final = 256
UNPROBED: Final = """
with keyless as (update zapwatch_channels set api_key = null)
update zapwatch_states set probe_due_at = null, due_at = null
"""
TOKENS: Final = """
insert into zapwatch_tokens (hash, kind, channel_id)
select sha256(convert_to('zw_' || channel_id, 'utf8')), 'channel', channel_id from zapwatch_channels
"""
TARGETS: Final = """
select '/webhooks/evolution_api/zw_' || channel_id || ' ' || instance as hook,
  '/channels/' || channel_id || '/state ' || instance as state
from zapwatch_channels order by random() limit $1
"""


@asynccontextmanager
async def population(dsn: str, channels: int, gateways: int) -> AsyncIterator[Connection]:
    connection = await connect(dsn, command_timeout=None)
    try:
        await populate(connection, channels, gateways)
        await connection.execute(UNPROBED)
        await connection.execute(TOKENS)
        await connection.execute("vacuum analyze")
        yield connection
    finally:
        await connection.close()


async def targets(connection: Connection, folder: Path, channels: int) -> tuple[str, str]:
    """Write files of webhook addresses and of addresses of states; return their names."""
    rows = await connection.fetch(TARGETS, channels)
    names = []
    for column in ("hook", "state"):
        path = folder / f"{column}-{channels}"
        path.write_text("\n".join(row[column] for row in rows))
        names.append(str(path))
    return names[0], names[1]
