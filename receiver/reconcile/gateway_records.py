"""Looks at what gateways have on record of channels that they call open, and notes what speaks against it.

Asks one question for a whole host, which touches no connection. A record is no evidence: it may be days old.
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
"""Keys that one look tries: one of the whole gateway lists all its channels, a channel's own only it."""

log = logging.getLogger(__name__)


async def look_at_records(pool: Pool, vault: Vault, client: Client) -> bool:
    """Look at the records that are due, side by side; return whether more may be due."""
    async with pool.acquire() as connection:
        due = await claim_records(connection, list(DEEP), datetime.now(UTC), AT_ONCE)
    await asyncio.gather(*(_try_to_look(pool, vault, client, gateway) for gateway in due))
    return len(due) == AT_ONCE


async def _try_to_look(pool: Pool, vault: Vault, client: Client, gateway: DueRecords) -> None:
    try:
        await _look(pool, vault, client, gateway)
    except Exception as error:
        if passes(error):
            raise
        # Whatever one gateway answers must not end the looking at all.
        log.exception("the records of gateway %s could not be looked at", gateway.id)


async def _look(pool: Pool, vault: Vault, client: Client, gateway: DueRecords) -> None:
    if not DEEP[gateway.provider].has_records(gateway.version):
        return
    async with pool.acquire() as connection:
        targets = await open_targets(connection, gateway.id)
    signs = await _read(vault, client, gateway, targets)
    async with pool.acquire() as connection:
        await drop_candidates(connection, [id for id, sign in signs.items() if sign is None])
        told = {id: sign for id, sign in signs.items() if sign is not None}
        await note_candidates(connection, told, datetime.now(UTC))


async def _read(
    vault: Vault, client: Client, gateway: DueRecords, targets: Iterable[ProbeTarget]
) -> dict[UUID, str | None]:
    """Return the sign against each channel that the gateway lists, or None; with as few keys as will do."""
    signs: dict[UUID, str | None] = {}
    unheard = {target.instance: target for target in targets if target.instance is not None}
    for _ in range(CALLS):
        if not unheard:
            break
        asked = next(iter(unheard))
        try:
            records = await _ask(client, gateway, key_of(vault, unheard[asked]))
        except Unaskable:
            records = {}
        except Unanswered as reason:
            log.info("gateway %s told no records: %s", gateway.id, reason)
            break
        except Exception:
            # What other keys were shown counts all the same.
            log.exception("the records of gateway %s could not be read", gateway.id)
            break
        for instance in unheard.keys() & records.keys():
            signs[unheard.pop(instance).channel_id] = records[instance]
        unheard.pop(asked, None)
    return signs


async def _ask(client: Client, gateway: DueRecords, key: str) -> Mapping[str, str | None]:
    deep = DEEP[gateway.provider]
    question = deep.ask_records(key)
    reply = await client.get(gateway.base_url + question.path, question.headers, LIST_LIMIT)
    return deep.read_records(reply.status, reply.body) or {}


def loop(pool: Pool, vault: Vault, client: Client) -> Loop:
    """Return the loop that looks at records; `client` has the patience that a list needs."""
    return Loop("gateway_records", partial(look_at_records, pool, vault, client), EVERY)
