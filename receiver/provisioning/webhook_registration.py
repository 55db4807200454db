"""Puts our address into the places where gateways keep where webhooks go, and keeps it there.

A place that holds another system's address is left alone, unless an operator says otherwise; then what was
there is kept, and can be put back. What a gateway answers to a change is not believed: it is read back.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from urllib.parse import unquote, urlsplit
from uuid import UUID

import orjson

from db.connection.retry import TRANSIENT
from db.connection.types import Pool
from db.diagnosis import token_owners
from db.reconcile.webhook_registrations import (
    RegistrationState,
    RegistrationUpdate,
    WebhookAddress,
    WebhookRegistration,
    claim_registrations,
    forget_registration,
    keep_registration,
    our_address,
    registration_identity,
)
from db.registry.tokens import hash_token
from db.vault import Vault
from receiver.jobs.loop import Loop
from receiver.outbound.client import Client, Unanswered
from receiver.outbound.credentials import Unaskable, key_of
from receiver.providers import MANAGED, Managed
from receiver.providers.report import INSTANCE_LENGTH, Order, RegisteredWebhooks, clean

AT_ONCE: Final = 8
"""Channels whose places are looked at at the same time."""
EVERY: Final = timedelta(seconds=1)
AGAIN: Final = timedelta(hours=1)
"""Pause after a gateway that did not tell, or did not save."""
DAILY: Final = timedelta(days=1)

log = logging.getLogger(__name__)


class WebhookRegistrar:
    """Fills places, looks at them, and puts back what was there."""

    def __init__(self, pool: Pool, vault: Vault, client: Client, base_url: str) -> None:
        self._pool = pool
        self._vault = vault
        self._client = client
        self._base_url = base_url
        self._versions: dict[UUID, str] = {}

    async def fill(self, place: WebhookRegistration, traffic: bool, replace: bool) -> RegistrationUpdate:
        """Put our address into a channel's places, and keep and return what came of it.

        `traffic`: messages are to be told, too. `replace`: another system's address gives way.
        """
        now = datetime.now(UTC)
        try:
            found = await self._fill(place, traffic, replace, now)
        except (Unaskable, Unanswered) as reason:
            log.info("webhooks of channel %s were not set: %s", place.channel_id, reason)
            found = RegistrationUpdate(RegistrationState.FAILED, traffic, due_at=now + AGAIN)
        await self._keep(place, found, now)
        return found

    async def look_again(self, place: WebhookRegistration) -> None:
        """Look whether our address is still where we put it, and put it back, never twice in a row."""
        now, traffic = datetime.now(UTC), bool(place.traffic)
        try:
            provider = _managed(place)
            slots = await self._look(place)
            ours = await self._ours(place, slots.addresses.values())
            is_set = all(slots.addresses[slot] in ours for slot in provider.slots(traffic=False))
            was_mended = place.mended_at is not None and place.mended_at == place.checked_at
            if is_set and (was_mended or await self._has_secret(place, slots)):
                found = RegistrationUpdate(RegistrationState.SET, traffic, due_at=now + DAILY)
            elif was_mended:
                found = RegistrationUpdate(RegistrationState.LOST, traffic)
            else:
                found = await self._fill(place, traffic, False, now)
                if found.state is not RegistrationState.FOREIGN:
                    found = found._replace(mended_at=now, due_at=now + DAILY)
        except (Unaskable, Unanswered) as reason:
            log.info("webhooks of channel %s were not looked at: %s", place.channel_id, reason)
            return
        await self._keep(place, found, now)

    async def put_back(self, place: WebhookRegistration) -> bool:
        """Put back what was in a channel's places before us, and forget them; return whether it is so."""
        assert place.before is not None
        row = orjson.loads(self._vault.open(place.before, registration_identity(place.channel_id)))
        try:
            key, version = key_of(self._vault, place), await self._version(place)
            for order in _managed(place).put_back(row, place.instance, key, version):
                await self._send(place, order)
            there = (await self._look(place)).addresses.values()
            if await self._ours(place, there):
                return False
        except (Unaskable, Unanswered) as reason:
            log.info("webhooks of channel %s were not put back: %s", place.channel_id, reason)
            return False
        async with self._pool.acquire() as connection:
            await forget_registration(connection, place.channel_id)
        return True

    async def address(self, gateway_id: UUID, provider: str) -> str:
        """Return the address that is set on the channels of a gateway."""
        return self._url(provider, await self._address(gateway_id, with_secret=False))

    def _url(self, provider: str, address: WebhookAddress) -> str:
        return f"{self._base_url}/webhooks/{provider}/{address.token}"

    async def _address(self, gateway_id: UUID, with_secret: bool) -> WebhookAddress:
        async with self._pool.acquire() as connection:
            return await our_address(connection, self._vault, gateway_id, with_secret)

    async def _has_secret(self, place: WebhookRegistration, slots: RegisteredWebhooks) -> bool:
        """Say whether our secret goes with the address, or can't."""
        if not _managed(place).sends_secret(place.version):
            return True
        return slots.secret == (await self._address(place.gateway_id, with_secret=True)).secret

    async def _fill(
        self, place: WebhookRegistration, traffic: bool, replace: bool, now: datetime
    ) -> RegistrationUpdate:
        provider = _managed(place)
        needed, wanted = provider.slots(traffic=False), provider.slots(traffic)
        slots = await self._look(place)
        ours = await self._ours(place, slots.addresses.values())
        foreign = {url for url in slots.addresses.values() if url not in ours and not self._leads_here(url)}
        taken = [slots.addresses[slot] for slot in needed if slots.addresses[slot] in foreign]
        if taken and not replace:
            return RegistrationUpdate(RegistrationState.FOREIGN, traffic, host_in(taken[0]))
        if place.before is None and any(slots.addresses[slot] in foreign for slot in wanted if replace):
            # Kept first: whatever fails from here on, it can be put back.
            before = self._vault.seal(
                orjson.dumps(slots.row).decode(), registration_identity(place.channel_id)
            )
            await self._keep(place, RegistrationUpdate(RegistrationState.FAILED, traffic, before=before), now)
        key, version = key_of(self._vault, place), await self._version(place)
        ours_now = await self._address(place.gateway_id, provider.sends_secret(version))
        address = self._url(place.provider, ours_now)
        for slot in wanted:
            if replace or slots.addresses[slot] not in foreign:
                order = provider.fill(slot, place.instance, key, address, version, traffic, ours_now.secret)
                await self._send(place, order)
        there = (await self._look(place)).addresses
        if any(there[slot] != address for slot in needed):
            return RegistrationUpdate(RegistrationState.FAILED, traffic, due_at=now + AGAIN)
        return RegistrationUpdate(RegistrationState.SET, traffic, due_at=now + DAILY)

    async def _keep(self, place: WebhookRegistration, found: RegistrationUpdate, now: datetime) -> None:
        async with self._pool.acquire() as connection:
            await keep_registration(connection, place.channel_id, found, now)

    async def _look(self, place: WebhookRegistration) -> RegisteredWebhooks:
        provider, key = _managed(place), key_of(self._vault, place)
        question = provider.ask_webhooks(place.instance, key)
        if question is None:
            raise Unaskable("its gateway keeps no addresses")
        reply = await self._client.get(place.base_url + question.path, question.headers)
        slots = provider.read_registered_webhooks(reply.status, reply.body)
        if slots is None:
            raise Unaskable(f"its gateway did not tell where they go (HTTP {reply.status})")
        return slots

    async def _send(self, place: WebhookRegistration, order: Order) -> None:
        reply = await self._client.send(order.method, place.base_url + order.path, order.headers, order.body)
        if reply.status >= 300:
            raise Unaskable(f"its gateway did not take the address (HTTP {reply.status})")

    async def _ours(self, place: WebhookRegistration, addresses: Iterable[str]) -> set[str]:
        """Return the addresses whose token is this channel's or its gateway's."""
        tokens = {address: token_in(address) for address in addresses}
        hashes = {address: hash_token(token[1]) for address, token in tokens.items() if token is not None}
        async with self._pool.acquire() as connection:
            owners = await token_owners(connection, list(hashes.values()))
        return {
            address
            for address, hash in hashes.items()
            if (owner := owners.get(hash)) is not None
            and (owner.gateway_id == place.gateway_id or owner.channel_id == place.channel_id)
        }

    def _leads_here(self, address: str) -> bool:
        """Say whether a place is free, or holds an address of ours, perhaps one whose token was revoked."""
        return not address or address.startswith(f"{self._base_url}/webhooks/")

    async def _version(self, place: WebhookRegistration) -> str | None:
        """Return the gateway's version, asked for once where it matters and isn't known."""
        if place.version is not None or not _managed(place).has_version:
            return place.version
        if place.gateway_id not in self._versions:
            reply = await self._client.get(f"{place.base_url}/")
            version = _managed(place).read_version(reply.body)
            if version is None:
                raise Unaskable("its gateway did not tell its version")
            self._versions[place.gateway_id] = version
        return self._versions[place.gateway_id]


def _managed(place: WebhookRegistration) -> Managed:
    """Return the place's provider; raise `Unaskable` when it has no places that this version knows."""
    provider = MANAGED.get(place.provider)
    if provider is None:
        raise Unaskable(f"this version knows no places of {place.provider}")
    return provider


def token_in(address: str) -> tuple[str, str] | None:
    """Return provider and token of an address that looks like one of ours."""
    found = re.search(r"/webhooks/([^/?#]+)/([^/?#]+)", address)
    return None if found is None else (found[1], unquote(found[2]))


def host_in(address: str) -> str | None:
    """Return the host of an address, for people; None when it has none: somebody may have set anything."""
    try:
        return clean(urlsplit(address).hostname, INSTANCE_LENGTH)
    except ValueError:
        return None


async def fill_all(
    webhook_registrar: WebhookRegistrar,
    places: Sequence[WebhookRegistration],
    traffic: bool,
    replace: bool,
    on_progress: Callable[[], None] = lambda: None,
) -> list[tuple[WebhookRegistration, RegistrationUpdate]]:
    """Put our address into many channels' places, some at a time; return what came of each."""
    free = asyncio.Semaphore(AT_ONCE)

    async def fill(place: WebhookRegistration) -> tuple[WebhookRegistration, RegistrationUpdate]:
        async with free:
            found = await webhook_registrar.fill(place, traffic, replace)
        on_progress()
        return place, found

    return await asyncio.gather(*(fill(place) for place in places))


async def look_again(pool: Pool, webhook_registrar: WebhookRegistrar) -> bool:
    """Look at the places that are due, side by side; return whether more may be due."""
    now = datetime.now(UTC)
    async with pool.acquire() as connection:
        due: Sequence[WebhookRegistration] = await claim_registrations(connection, now, now + AGAIN, AT_ONCE)
    await asyncio.gather(*(_look_again(webhook_registrar, place) for place in due))
    return len(due) == AT_ONCE


async def _look_again(webhook_registrar: WebhookRegistrar, place: WebhookRegistration) -> None:
    try:
        await webhook_registrar.look_again(place)
    except TRANSIENT:
        raise
    except Exception:
        # Whatever one gateway answers must not end the looking at all.
        log.exception("the webhooks of channel %s were not looked at", place.channel_id)


def loop(pool: Pool, webhook_registrar: WebhookRegistrar) -> Loop:
    """Return the loop that looks at the places again."""
    return Loop("webhook_registrations", partial(look_again, pool, webhook_registrar), EVERY)
