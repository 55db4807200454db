"""Keeps webhooks that can't be applied: unknown instances are counted, unreadable bodies kept sealed."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from db.connection.types import Connection, Pool
from db.queries import sql
from db.vault import Vault

KEPT_OF_BODY: Final = 16 * 1024
"""Bytes of an unreadable body that are kept."""
KEPT_FOR: Final = timedelta(days=7)
UNKNOWN_FOR: Final = timedelta(days=90)
"""How long an unregistered instance is remembered after its last event: names can be made up."""


async def note_unknown_instance(
    pool: Pool, gateway_id: UUID, instance: str, received_at: datetime, word: str | None
) -> None:
    """Count an event of an unregistered instance; `word` is the state in the event, if any."""
    await pool.execute(sql.note_unknown_instance, gateway_id, instance, received_at, word)


async def quarantine(
    connection: Connection,
    vault: Vault,
    token_hash: bytes,
    tenant_id: UUID | None,
    provider: str,
    suffix: str | None,
    body: bytes,
    problem: str,
    received_at: datetime,
) -> None:
    """Keep the beginning of an unreadable body, sealed; at most a thousand for each token."""
    sealed = vault.seal(body[:KEPT_OF_BODY], f"quarantine:{token_hash.hex()}")
    async with connection.transaction():
        await connection.execute(sql.lock_quarantine, token_hash)
        await connection.execute(
            sql.quarantine,
            token_hash,
            tenant_id,
            provider,
            suffix,
            sealed,
            len(body),
            problem,
            received_at,
        )


async def prune(connection: Connection, now: datetime) -> None:
    """Forget unreadable bodies and unknown instances after their time; at most a thousand of each."""
    await connection.execute(sql.prune_quarantine, now - KEPT_FOR)
    await connection.execute(sql.prune_unknown_instances, now - UNKNOWN_FOR)
