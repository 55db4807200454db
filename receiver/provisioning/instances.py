"""Lists the instances of a gateway and registers them; makes no probe and changes nothing on the gateway."""

from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from db.connection.types import Pool
from db.registry.imports import CHUNK, ListedInstance, register_instances
from db.vault import Vault
from receiver.outbound.client import LIST_LIMIT, Client, Unanswered
from receiver.providers import MANAGED

MOST_PAGES: Final = 10_000


class NotListed(Exception):
    """The gateway listed no instances; the message says why, for an operator."""


async def list_instances(client: Client, provider: str, base_url: str, key: str) -> list[ListedInstance]:
    """Return the instances on a gateway, as `key` may see them; raises `NotListed`."""
    dialect, listed = MANAGED.get(provider), list[ListedInstance]()
    if dialect is None:
        raise NotListed(f"{provider} has no list of instances that could be asked for.")
    page, pages = 1, 1
    while page <= min(pages, MOST_PAGES):
        question = dialect.ask_instances(key, page)
        try:
            reply = await client.get(f"{base_url}{question.path}", question.headers, LIST_LIMIT)
        except Unanswered as reason:
            raise NotListed(f"The gateway did not answer: {reason}.") from None
        if reply.status in (401, 403):
            raise NotListed(f"The gateway refused the key (HTTP {reply.status}).")
        listing = dialect.read_instances(reply.status, reply.body)
        if listing is None:
            raise NotListed(f"The gateway's answer is no list of instances (HTTP {reply.status}).")
        listed += listing.found
        page, pages = page + 1, listing.pages
    return listed


async def register(
    pool: Pool,
    vault: Vault,
    provider: str,
    gateway_id: UUID,
    tenant_id: UUID | None,
    listed: Sequence[ListedInstance],
    on_progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Register listed instances, reporting progress after each set; return how many were new.

    Raises `UnknownTenant`.
    """
    new = 0
    for first in range(0, len(listed), CHUNK):
        part = listed[first : first + CHUNK]
        async with pool.acquire() as connection:
            new += await register_instances(connection, vault, provider, gateway_id, tenant_id, part)
        on_progress(first + len(part))
    return new
