"""Sets the service's webhook address on gateways, and checks daily that it is still set.

An address of another system is never replaced unless an operator requests it; the replaced row is kept and
can be restored. A gateway's answer to a change is not trusted: the address is read back.
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
"""Registrations that are checked at the same time."""
EVERY: Final = timedelta(seconds=1)
AGAIN: Final = timedelta(hours=1)
"""Pause after a gateway did not answer, or did not save the address."""
DAILY: Final = timedelta(days=1)

log = logging.getLogger(__name__)


class WebhookRegistrar:
    """Sets, checks and restores the webhook addresses of channels."""

    def __init__(self, pool: Pool, vault: Vault, client: Client, base_url: str) -> None:
        self._pool = pool
        self._vault = vault
        self._client = client
        self._base_url = base_url
        self._versions: dict[UUID, str] = {}

    async def register(
        self, registration: WebhookRegistration, traffic: bool, replace: bool
    ) -> RegistrationUpdate:
        """Set our address on a channel's instance; store and return the result.

        `traffic`: also subscribe to messages. `replace`: overwrite another system's address.
        """
        now = datetime.now(UTC)
        try:
            update = await self._set(registration, traffic, replace, now)
        except (Unaskable, Unanswered) as reason:
            log.info("webhooks of channel %s were not set: %s", registration.channel_id, reason)
            update = RegistrationUpdate(RegistrationState.FAILED, traffic, due_at=now + AGAIN)
        await self._keep(registration, update, now)
        return update

    async def check(self, registration: WebhookRegistration) -> None:
        """Check that our address is still set, and set it again if not, never twice in a row."""
        now, traffic = datetime.now(UTC), bool(registration.traffic)
        try:
            provider = _managed(registration)
            found = await self._read(registration)
            ours = await self._ours(registration, found.addresses.values())
            is_set = all(found.addresses[field] in ours for field in provider.address_fields(traffic=False))
            was_mended = (
                registration.mended_at is not None and registration.mended_at == registration.checked_at
            )
            if is_set and (was_mended or await self._has_secret(registration, found)):
                update = RegistrationUpdate(RegistrationState.SET, traffic, due_at=now + DAILY)
            elif was_mended:
                update = RegistrationUpdate(RegistrationState.LOST, traffic)
            else:
                update = await self._set(registration, traffic, False, now)
                if update.state is not RegistrationState.FOREIGN:
                    update = update._replace(mended_at=now, due_at=now + DAILY)
        except (Unaskable, Unanswered) as reason:
            log.info("webhooks of channel %s were not checked: %s", registration.channel_id, reason)
            return
        await self._keep(registration, update, now)

    async def restore(self, registration: WebhookRegistration) -> bool:
        """Restore a channel's previous addresses and forget the registration; return whether it worked."""
        assert registration.before is not None
        row = orjson.loads(
            self._vault.open(registration.before, registration_identity(registration.channel_id))
        )
        try:
            key, version = key_of(self._vault, registration), await self._version(registration)
            for order in _managed(registration).restore_webhooks(row, registration.instance, key, version):
                await self._send(registration, order)
            current = (await self._read(registration)).addresses.values()
            if await self._ours(registration, current):
                return False
        except (Unaskable, Unanswered) as reason:
            log.info("webhooks of channel %s were not restored: %s", registration.channel_id, reason)
            return False
        async with self._pool.acquire() as connection:
            await forget_registration(connection, registration.channel_id)
        return True

    async def address(self, gateway_id: UUID, provider: str) -> str:
        """Return the address that is set on the channels of a gateway."""
        return self._url(provider, await self._address(gateway_id, with_secret=False))

    def _url(self, provider: str, address: WebhookAddress) -> str:
        return f"{self._base_url}/webhooks/{provider}/{address.token}"

    async def _address(self, gateway_id: UUID, with_secret: bool) -> WebhookAddress:
        async with self._pool.acquire() as connection:
            return await our_address(connection, self._vault, gateway_id, with_secret)

    async def _has_secret(self, registration: WebhookRegistration, found: RegisteredWebhooks) -> bool:
        """Return whether our secret is set with the address, or this version can't send one."""
        if not _managed(registration).sends_secret(registration.version):
            return True
        return found.secret == (await self._address(registration.gateway_id, with_secret=True)).secret

    async def _set(
        self, registration: WebhookRegistration, traffic: bool, replace: bool, now: datetime
    ) -> RegistrationUpdate:
        provider = _managed(registration)
        needed, wanted = provider.address_fields(traffic=False), provider.address_fields(traffic)
        found = await self._read(registration)
        ours = await self._ours(registration, found.addresses.values())
        foreign = {url for url in found.addresses.values() if url not in ours and not self._leads_here(url)}
        taken = [found.addresses[field] for field in needed if found.addresses[field] in foreign]
        if taken and not replace:
            return RegistrationUpdate(RegistrationState.FOREIGN, traffic, host_in(taken[0]))
        if registration.before is None and any(
            found.addresses[field] in foreign for field in wanted if replace
        ):
            # Kept before the change: if anything fails from here on, it can be restored.
            before = self._vault.seal(
                orjson.dumps(found.row).decode(), registration_identity(registration.channel_id)
            )
            await self._keep(
                registration, RegistrationUpdate(RegistrationState.FAILED, traffic, before=before), now
            )
        key, version = key_of(self._vault, registration), await self._version(registration)
        ours_now = await self._address(registration.gateway_id, provider.sends_secret(version))
        address = self._url(registration.provider, ours_now)
        for field in wanted:
            if replace or found.addresses[field] not in foreign:
                order = provider.set_address(
                    field, registration.instance, key, address, version, traffic, ours_now.secret
                )
                await self._send(registration, order)
        current = (await self._read(registration)).addresses
        if any(current[field] != address for field in needed):
            return RegistrationUpdate(RegistrationState.FAILED, traffic, due_at=now + AGAIN)
        return RegistrationUpdate(RegistrationState.SET, traffic, due_at=now + DAILY)

    async def _keep(
        self, registration: WebhookRegistration, update: RegistrationUpdate, now: datetime
    ) -> None:
        async with self._pool.acquire() as connection:
            await keep_registration(connection, registration.channel_id, update, now)

    async def _read(self, registration: WebhookRegistration) -> RegisteredWebhooks:
        provider, key = _managed(registration), key_of(self._vault, registration)
        question = provider.ask_webhooks(registration.instance, key)
        if question is None:
            raise Unaskable("its gateway keeps no addresses")
        reply = await self._client.get(registration.base_url + question.path, question.headers)
        found = provider.read_registered_webhooks(reply.status, reply.body)
        if found is None:
            raise Unaskable(f"its gateway did not return the addresses (HTTP {reply.status})")
        return found

    async def _send(self, registration: WebhookRegistration, order: Order) -> None:
        reply = await self._client.send(
            order.method, registration.base_url + order.path, order.headers, order.body
        )
        if reply.status >= 300:
            raise Unaskable(f"its gateway refused the address (HTTP {reply.status})")

    async def _ours(self, registration: WebhookRegistration, addresses: Iterable[str]) -> set[str]:
        """Return the addresses whose token is this channel's or its gateway's."""
        tokens = {address: token_in(address) for address in addresses}
        hashes = {address: hash_token(token[1]) for address, token in tokens.items() if token is not None}
        async with self._pool.acquire() as connection:
            owners = await token_owners(connection, list(hashes.values()))
        return {
            address
            for address, hash in hashes.items()
            if (owner := owners.get(hash)) is not None
            and (owner.gateway_id == registration.gateway_id or owner.channel_id == registration.channel_id)
        }

    def _leads_here(self, address: str) -> bool:
        """Return whether an address is empty, or one of ours, possibly with a revoked token."""
        return not address or address.startswith(f"{self._base_url}/webhooks/")

    async def _version(self, registration: WebhookRegistration) -> str | None:
        """Return the gateway's version, asked for once where it matters and isn't known."""
        if registration.version is not None or not _managed(registration).has_version:
            return registration.version
        if registration.gateway_id not in self._versions:
            reply = await self._client.get(f"{registration.base_url}/")
            version = _managed(registration).read_version(reply.body)
            if version is None:
                raise Unaskable("its gateway did not return its version")
            self._versions[registration.gateway_id] = version
        return self._versions[registration.gateway_id]


def _managed(registration: WebhookRegistration) -> Managed:
    """Return a registration's provider; raise `Unaskable` if this version can't set its addresses."""
    provider = MANAGED.get(registration.provider)
    if provider is None:
        raise Unaskable(f"this version sets no webhook addresses for {registration.provider}")
    return provider


def token_in(address: str) -> tuple[str, str] | None:
    """Return provider and token of an address that looks like one of ours."""
    found = re.search(r"/webhooks/([^/?#]+)/([^/?#]+)", address)
    return None if found is None else (found[1], unquote(found[2]))


def host_in(address: str) -> str | None:
    """Return the host of an address, for display; None when it has none: the stored value may be any text."""
    try:
        return clean(urlsplit(address).hostname, INSTANCE_LENGTH)
    except ValueError:
        return None


async def register_all(
    webhook_registrar: WebhookRegistrar,
    registrations: Sequence[WebhookRegistration],
    traffic: bool,
    replace: bool,
    on_progress: Callable[[], None] = lambda: None,
) -> list[tuple[WebhookRegistration, RegistrationUpdate]]:
    """Set our address on many channels' instances, `AT_ONCE` at a time; return each result."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def register(registration: WebhookRegistration) -> tuple[WebhookRegistration, RegistrationUpdate]:
        async with slots:
            update = await webhook_registrar.register(registration, traffic, replace)
        on_progress()
        return registration, update

    return await asyncio.gather(*(register(registration) for registration in registrations))


async def check_due(pool: Pool, webhook_registrar: WebhookRegistrar) -> bool:
    """Check the registrations that are due, concurrently; return whether more may be due."""
    now = datetime.now(UTC)
    async with pool.acquire() as connection:
        due: Sequence[WebhookRegistration] = await claim_registrations(connection, now, now + AGAIN, AT_ONCE)
    await asyncio.gather(*(_check(webhook_registrar, registration) for registration in due))
    return len(due) == AT_ONCE


async def _check(webhook_registrar: WebhookRegistrar, registration: WebhookRegistration) -> None:
    try:
        await webhook_registrar.check(registration)
    except TRANSIENT:
        raise
    except Exception:
        # An unforeseen answer of one gateway must not end the checks of the others.
        log.exception("the webhooks of channel %s were not checked", registration.channel_id)


def loop(pool: Pool, webhook_registrar: WebhookRegistrar) -> Loop:
    """Return the loop that checks registrations."""
    return Loop("webhook_registrations", partial(check_due, pool, webhook_registrar), EVERY)
