"""Reads gateways' stored records of open channels, and notes deep probe candidates where they disagree.

One question covers a whole gateway and touches no connection. A record is no evidence: it may be days old.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from db.connection.retry import passes
from db.connection.types import Pool
from db.reconcile.claims import ProbeTarget
from db.reconcile.deep_probes import DueRecords, claim_records, drop_candidates, note_candidates, open_targets
from db.vault import Vault
from receiver.jobs.loop import Loop
from receiver.outbound.client import LIST_LIMIT, Client, Unanswered
from receiver.outbound.credentials import Unaskable, key_of
from receiver.providers import DEEP

EVERY: Final = timedelta(seconds=1)
AT_ONCE: Final = 4
"""Gateways whose records are read at a time: a list of ten thousand instances is some 13 MB."""
CALLS: Final = 20
"""Keys that one read tries: a gateway's key lists all its channels, a channel's own key only that one."""

log = logging.getLogger(__name__)


async def check_records(pool: Pool, vault: Vault, client: Client) -> bool:
    """Read the records that are due, concurrently; return whether more may be due."""
    async with pool.acquire() as connection:
        due = await claim_records(connection, list(DEEP), datetime.now(UTC), AT_ONCE)
    await asyncio.gather(*(_check(pool, vault, client, gateway) for gateway in due))
    return len(due) == AT_ONCE


async def _check(pool: Pool, vault: Vault, client: Client, gateway: DueRecords) -> None:
    try:
        await _check_one(pool, vault, client, gateway)
    except Exception as error:
        if passes(error):
            raise
        # An unforeseen answer of one gateway must not end the reads of the others.
        log.exception("the records of gateway %s could not be checked", gateway.id)


async def _check_one(pool: Pool, vault: Vault, client: Client, gateway: DueRecords) -> None:
    if not DEEP[gateway.provider].has_records(gateway.version):
        return
    async with pool.acquire() as connection:
        targets = await open_targets(connection, gateway.id)
    signs = await _read(vault, client, gateway, targets)
    async with pool.acquire() as connection:
        await drop_candidates(connection, [id for id, sign in signs.items() if sign is None])
        signed = {id: sign for id, sign in signs.items() if sign is not None}
        await note_candidates(connection, signed, datetime.now(UTC))


async def _read(
    vault: Vault, client: Client, gateway: DueRecords, targets: Iterable[ProbeTarget]
) -> dict[UUID, str | None]:
    """Return the sign, or None, for each channel that the gateway lists; with as few keys as possible."""
    signs: dict[UUID, str | None] = {}
    pending = {target.instance: target for target in targets if target.instance is not None}
    for _ in range(CALLS):
        if not pending:
            break
        instance_of_key = next(iter(pending))
        try:
            records = await _ask(client, gateway, key_of(vault, pending[instance_of_key]))
        except Unaskable:
            records = {}
        except Unanswered as reason:
            log.info("gateway %s returned no records: %s", gateway.id, reason)
            break
        except Exception:
            # The answers for other keys still count.
            log.exception("the records of gateway %s could not be read", gateway.id)
            break
        for instance in pending.keys() & records.keys():
            signs[pending.pop(instance).channel_id] = records[instance]
        pending.pop(instance_of_key, None)
    return signs


async def _ask(client: Client, gateway: DueRecords, key: str) -> Mapping[str, str | None]:
    deep = DEEP[gateway.provider]
    question = deep.ask_records(key)
    reply = await client.get(gateway.base_url + question.path, question.headers, LIST_LIMIT)
    return deep.read_records(reply.status, reply.body) or {}


def loop(pool: Pool, vault: Vault, client: Client) -> Loop:
    """Return the loop that reads records; `client` needs the timeout for lists."""
    return Loop("gateway_records", partial(check_records, pool, vault, client), EVERY)
