"""Receives gateways' webhooks: finds their token's owner, has them parsed, and answers after the commit.

A valid token never gets 400, 403, 404, 422 or 5xx other than 503: gateways take those for final and drop the
event (docs/provider-facts.md#evolution-delivery). Nothing of a body is logged; what can't be applied goes to
the quarantine (202).

An ASGI app by itself: nothing is called as often, and routing alone would cost as much as storing the event.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import Final
from uuid import UUID

from prometheus_client import Counter
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from db.connection.dataloader import DataLoader
from db.connection.retry import persist
from db.connection.types import Pool
from db.ingest.entry import Entry, Source
from db.ingest.quarantine import note_unknown_instance, quarantine
from db.ingest.queue import COMMIT_TIMEOUT, NotCommitted
from db.ingest.writer import Writer
from db.reads.channels import read_states
from db.reads.tokens import WebhookOwner
from db.reconcile.qr import seal_qr
from db.vault import Vault
from receiver.http.auth import Tokens
from receiver.http.problems import (
    MethodNotAllowed,
    NotFound,
    Problem,
    TooLarge,
    Unauthorized,
    Unavailable,
    answer,
)
from receiver.ingest.live_traffic import LiveTraffic
from receiver.ingest.webhook_secret import carries_secret, unverified
from receiver.providers import PROVIDERS, Provider
from receiver.providers.report import LIVE_FOR, Report, Unreadable, clean
from receiver.telemetry.metrics import Metrics
from statemachine.model import State
from statemachine.signals import Alive

BODY_LIMIT: Final = 1024 * 1024
"""Bytes of a body that is read whole."""
GLIMPSE: Final = 64 * 1024
"""Bytes of a larger body that are parsed."""
SMALL: Final = 64 * 1024
"""Bytes of a body that is read at once, with any number of others."""
LARGE_AT_ONCE: Final = 64
"""Larger bodies in memory at once; the others wait unread."""
DRAINED: Final = 160 * 1024 * 1024
"""Bytes of a larger body that are read and discarded, so that the sender reads the answer."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Webhook:
    """One webhook under way: the owner of its token, when it came, and how long its sender may still wait."""

    token_owner: WebhookOwner
    suffix: str | None
    received_at: datetime
    seconds_left: float
    verified: bool
    """Whether it carries the secret that was set with its address."""
    body: bytes = b""


def is_webhook(scope: Scope) -> bool:
    """Return whether `Webhooks` answers a request."""
    return scope["type"] == "http" and str(scope["path"]).startswith("/webhooks/")


class Webhooks:
    """The ASGI app of `POST /webhooks/{provider}/{token}`, with any suffix."""

    def __init__(
        self,
        *,
        tokens: Tokens,
        writer: Writer,
        live_traffic: LiveTraffic,
        pool: Pool,
        vault: Vault,
        metrics: Metrics,
    ) -> None:
        self._tokens, self._writer, self._live_traffic = tokens, writer, live_traffic
        self._pool, self._vault = pool, vault
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._answers = cache(metrics.webhook_answers.labels)
        self._states = DataLoader(self._read_states)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one webhook: 204 committed, 202 noted, 401 unknown token, 413, 503 send again."""
        _, _, name, *rest = scope["path"].split("/", 4)
        if not (name and rest and rest[0]):
            await answer(NotFound("There is nothing at this path."))(scope, receive, send)
            return
        if scope["method"] != "POST":
            await answer(MethodNotAllowed("POST"))(scope, receive, send)
            return
        token, *suffix = rest
        provider = PROVIDERS.get(name)
        try:
            response = await self._respond(
                provider, name, token, suffix[0] if suffix else None, scope, receive
            )
        except ClientDisconnect:
            self._count(provider, 499)
            return
        if isinstance(response, Problem):
            self._count(provider, int(response.status))
            await answer(response)(scope, receive, send)
        else:
            self._count(provider, response)
            await send({"type": "http.response.start", "status": response, "headers": NO_BODY[response]})
            await send({"type": "http.response.body"})

    async def _respond(
        self,
        provider: Provider | None,
        name: str,
        token: str,
        suffix: str | None,
        scope: Scope,
        receive: Receive,
    ) -> int | Problem:
        """Return a status or a problem; after any failure the sender is to send the webhook again."""
        try:
            if provider is None:
                return await self._refuse(name, token)
            return await self._receive(provider, token, suffix, scope, receive)
        except (Unauthorized, TooLarge, Unavailable) as problem:
            return problem
        except NotCommitted as unavailable:
            return Unavailable(str(unavailable))
        except TimeoutError:
            return Unavailable("The event was not stored in time; send it again.")
        except ClientDisconnect:
            raise
        except Exception:
            log.exception("a webhook was not accepted")
            return Unavailable("The event was not stored; send it again.")

    async def _refuse(self, name: str, token: str) -> Problem:
        """Return the answer to a webhook of a provider unknown to this version, as after a downgrade.

        With a valid token it is to be sent again: it can't be parsed now, and may hold a message.
        """
        async with asyncio.timeout(COMMIT_TIMEOUT.total_seconds()):
            owner = await self._tokens.resolve(name, token)
        if owner is None:
            return Unauthorized("Nobody has this webhook address.")
        return Unavailable("This version does not know the provider; send it again.")

    def _count(self, provider: Provider | None, status: int) -> None:
        counter: Counter = self._answers("unknown" if provider is None else provider.name, str(status))
        counter.inc()

    async def _receive(
        self, provider: Provider, token: str, suffix: str | None, scope: Scope, receive: Receive
    ) -> int:
        # The total wait of one sender for the database; the arrival of its body doesn't count.
        seconds_left = COMMIT_TIMEOUT.total_seconds()
        owner: WebhookOwner | None = self._tokens.known(provider.name, token)
        if owner is None:
            now = asyncio.get_running_loop().time
            began = now()
            async with asyncio.timeout(seconds_left):
                owner = await self._tokens.resolve(provider.name, token)
            seconds_left -= now() - began
        if owner is None:
            raise Unauthorized("Nobody has this webhook address.")
        verified = carries_secret(scope["headers"], owner.secret_hash)
        webhook = Webhook(owner, suffix, datetime.now(UTC), seconds_left, verified)
        webhook.body, more = await _read_small(receive)
        if not more and len(webhook.body) <= SMALL:
            return await self._process(provider, webhook, whole=True)
        async with self._large:
            webhook.body, whole = await _read_on(receive, webhook.body, more)
            return await self._process(provider, webhook, whole)

    async def _process(self, provider: Provider, webhook: Webhook, whole: bool) -> int:
        try:
            if whole:
                report: Report | None = _parse(provider, webhook)
            else:
                report = provider.glimpse(webhook.body[:GLIMPSE])
        except Unreadable as problem:
            await self._quarantine(webhook, str(problem))
            return 202
        if report is None:
            raise TooLarge("The body is over 1 MiB and not one that can be recognised.")
        says_nothing = report.said is None and not report.alive
        if says_nothing and (webhook.token_owner.kind == "channel" or report.instance is None):
            return 204
        channel_id = await self._channel(webhook, report)
        if channel_id is not None:
            if not says_nothing:
                await self._apply(webhook, channel_id, report)
            return 204
        if report.instance is None:
            await self._quarantine(webhook, "no instance name")
        else:
            await self._note_unknown(webhook, report.instance, report.word)
        return 202

    async def _channel(self, webhook: Webhook, report: Report) -> UUID | None:
        """Return the channel that a webhook is about; None if it is unknown or not the token's."""
        owner, named = webhook.token_owner, report.instance
        if owner.kind == "channel" and named in (None, owner.instance):
            return owner.channel_id
        if named is None:
            return None
        channel = self._tokens.known_channel_of(owner.gateway_id, named)
        if channel is None:
            async with asyncio.timeout(webhook.seconds_left):
                channel = await self._tokens.channel_of(owner.gateway_id, named)
        if owner.kind == "channel":
            # A channel's token is valid for no other known channel.
            return owner.channel_id if channel is None else None
        return None if channel is None else channel.channel_id

    async def _apply(self, webhook: Webhook, channel_id: UUID, report: Report) -> None:
        writer, received_at = self._writer, webhook.received_at
        if report.said is not None:
            entry = Entry(
                channel_id,
                Source.WEBHOOK,
                report.name,
                received_at,
                report.said if webhook.verified else unverified(report.said),
                report.key,
                qr=None if report.qr is None else seal_qr(self._vault, channel_id, report.qr),
                owner=report.owner,
            )
            await writer.submit([entry], webhook.seconds_left)
            return
        emitted_at = _emitted_at(webhook.token_owner, report, received_at)
        if received_at - emitted_at > LIVE_FOR:
            return
        state = writer.state_of(channel_id)
        if state is None:
            async with asyncio.timeout(webhook.seconds_left):
                state = await persist(partial(self._states.find, channel_id))
        alive = Alive(received_at, emitted_at)
        if state is State.OPEN:
            self._live_traffic.note(channel_id, alive, report.owner)
        else:
            entry = Entry(channel_id, Source.WEBHOOK, "alive", received_at, alive, owner=report.owner)
            await writer.submit([entry], webhook.seconds_left)

    async def _read_states(self, channel_ids: Sequence[UUID]) -> dict[UUID, State]:
        states = await read_states(self._pool, channel_ids)
        self._writer.remember(states)
        return states

    async def _note_unknown(self, webhook: Webhook, instance: str, word: str | None) -> None:
        unknown = webhook.token_owner.gateway_id, instance, webhook.received_at, word
        async with asyncio.timeout(webhook.seconds_left):
            await persist(lambda: note_unknown_instance(self._pool, *unknown))

    async def _quarantine(self, webhook: Webhook, problem: str) -> None:
        async def keep() -> None:
            async with self._pool.acquire() as connection:
                await quarantine(
                    connection,
                    self._vault,
                    token_hash=webhook.token_owner.token_hash,
                    tenant_id=webhook.token_owner.tenant_id,
                    provider=webhook.token_owner.provider,
                    suffix=clean(webhook.suffix),
                    body=webhook.body,
                    problem=problem,
                    received_at=webhook.received_at,
                )

        async with asyncio.timeout(webhook.seconds_left):
            await persist(keep)


NO_BODY: Final[dict[int, list[tuple[bytes, bytes]]]] = {202: [(b"content-length", b"0")], 204: []}
"""The headers of answers that are their status alone."""


async def _chunk(receive: Receive) -> tuple[bytes, bool]:
    """Return a piece of the body, and whether more follows."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


async def _read_small(receive: Receive) -> tuple[bytes, bool]:
    """Return the body, or the beginning of a large one, and whether more follows."""
    body, more = await _chunk(receive)
    if not more:
        return body, more
    chunks, size = [body], len(body)
    while more and size <= SMALL:
        body, more = await _chunk(receive)
        chunks.append(body)
        size += len(body)
    return b"".join(chunks), more


async def _read_on(receive: Receive, start: bytes, more: bool) -> tuple[bytes, bool]:
    """Return the body that begins so, or the beginning of one over the limit, and whether it is whole."""
    chunks, size = [start], len(start)
    while more and size <= DRAINED:
        chunk, more = await _chunk(receive)
        if size <= BODY_LIMIT:
            chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks), size <= BODY_LIMIT


def _parse(provider: Provider, webhook: Webhook) -> Report:
    try:
        return provider.parse(webhook.body, webhook.token_owner.version, webhook.received_at)
    except Unreadable:
        raise
    except Exception as error:
        # An unforeseen body must not cost its event.
        log.exception("a %s webhook could not be read", provider.name)
        raise Unreadable(f"unforeseen: {type(error).__name__}") from None


def _emitted_at(owner: WebhookOwner, report: Report, received_at: datetime) -> datetime:
    """Return when live traffic was sent, by our clock; until its gateway's clock is known, when it came."""
    if report.at is None or owner.clock.offset is None:
        return received_at
    return owner.clock.read(report.at, received_at)[1]
