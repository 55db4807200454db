"""Returns a channel's QR, for the API and the reconnect page: the one of the last webhook, or a new one.

A gateway is asked only for a channel that is known to need a scan, because a new QR can end a session that
would have recovered. The gateway's answer sets no state, and is returned to the caller alone.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from db.connection.types import Pool
from db.reconcile.qr import Qr, QrRequest, claim_question, open_qr, probe_now, qr_request
from db.vault import Vault, VaultError
from receiver.i18n.reasons import reason_text
from receiver.outbound.client import Client, Unanswered
from receiver.outbound.credentials import Unaskable, key_of
from receiver.providers import SCANNABLE, Scannable
from receiver.providers.qr import NoQr
from statemachine.model import State

SCANNED_WITHIN: Final = timedelta(seconds=20)
"""How soon the channel is probed after a QR was returned: it is probably being scanned."""
NOT_YET_AGAIN: Final = timedelta(seconds=5)
"""When to ask again for a QR that the gateway is making."""
QR_ALLOWED: Final = frozenset({State.QR_PENDING, State.UNPAIRED})
"""The states without a session that a new QR could end.

Whether a scan helps is another question (`Status.scan_helps`): an operator may link another number to the
channel of a banned one.
"""
WHY_NOT: Final = {
    State.UNKNOWN: "Nothing is known of the channel yet: it may be connected.",
    State.OPEN: "The channel is connected: there is nothing to scan.",
    State.CONNECTING: "The channel is connecting, which a new QR would disturb. Wait until it has.",
    State.DROPPED: "The connection dropped, but its session may come back by itself: a new QR could end it.",
    State.ERROR: "Nobody can tell whether the channel needs a scan.",
}


@dataclass(frozen=True, slots=True)
class QrShown:
    """A QR, and until when it can be scanned at the latest."""

    qr: Qr
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class QrNotShown:
    """There is no QR for this channel now, and why."""

    why: str
    is_connected: bool = False
    """The gateway reports the channel as connected; a probe will confirm it."""


@dataclass(frozen=True, slots=True)
class QrNotGiven:
    """The gateway was asked and returned no QR: why, and when to ask again if that can help."""

    why: str
    again_in: timedelta | None = None


@dataclass(frozen=True, slots=True)
class QrTooSoon:
    """The gateway was asked moments ago."""

    again_in: timedelta


async def show_qr(
    pool: Pool, vault: Vault, client: Client, channel_id: UUID, tenant_id: UUID | None, number: str | None
) -> QrShown | QrNotShown | QrNotGiven | QrTooSoon | None:
    """Return a channel's QR or why there is none; with a number a pairing code, too, where there are any.

    None: there is no such channel of this tenant.
    """
    now = datetime.now(UTC)
    async with pool.acquire() as connection:
        request = await qr_request(connection, channel_id, tenant_id, now)
    if request is None:
        return None
    if request.state not in QR_ALLOWED:
        reason = (
            f" {reason_text(request.reason, 'en')}" if request.state is State.ERROR and request.reason else ""
        )
        return QrNotShown(WHY_NOT[request.state] + reason)
    shown = _shown_by_gateway(vault, request) if number is None else None
    return shown or await _fetch(pool, vault, client, request, number)


def _shown_by_gateway(vault: Vault, request: QrRequest) -> QrShown | None:
    """Return the QR of the last webhook if it can still be scanned."""
    if request.state is not State.QR_PENDING or request.sealed is None or request.scanned_until is None:
        return None
    try:
        return QrShown(open_qr(vault, request.target.channel_id, request.sealed), request.scanned_until)
    except VaultError:
        return None


async def _fetch(
    pool: Pool, vault: Vault, client: Client, request: QrRequest, number: str | None
) -> QrShown | QrNotShown | QrNotGiven | QrTooSoon:
    target, provider = request.target, SCANNABLE.get(request.target.provider)
    if provider is None:
        return QrNotShown(f"{target.provider} has no QR that could be asked for here.")
    if request.paused:
        return QrNotShown("The channel is paused or inactive, so its gateway isn't asked.")
    try:
        question = provider.ask_qr(target.instance or "", key_of(vault, target), number)
    except Unaskable as reason:
        return QrNotShown(f"The gateway can't be asked for a QR: {reason}.")
    async with pool.acquire() as connection:
        wait = await claim_question(connection, target.channel_id, datetime.now(UTC))
    if wait is not None:
        return QrTooSoon(wait)
    try:
        reply = await client.get(target.base_url + question.path, question.headers)
    except Unanswered as reason:
        return QrNotGiven(f"The gateway did not answer: {reason}.")
    return await _result_of(pool, target.channel_id, provider, provider.read_qr(reply.status, reply.body))


async def _result_of(
    pool: Pool, channel_id: UUID, provider: Scannable, answer: Qr | NoQr
) -> QrShown | QrNotShown | QrNotGiven:
    now = datetime.now(UTC)
    match answer:
        case Qr():
            await _probe_at(pool, channel_id, now + SCANNED_WITHIN)
            return QrShown(answer, now + provider.qr_life)
        case NoQr.CONNECTED:
            await _probe_at(pool, channel_id, now)
            why = "The gateway says that the channel is connected. It is being probed."
            return QrNotShown(why, is_connected=True)
        case NoQr.NOT_YET:
            return QrNotGiven("The gateway is making a QR. Ask again in a few seconds.", NOT_YET_AGAIN)
        case NoQr.MISSING:
            return QrNotShown("The gateway has no such instance. Make it there again, then ask for its QR.")
        case NoQr.UNAUTHORIZED:
            return QrNotGiven("The gateway refused the channel's key.")
        case NoQr.FAILED:
            return QrNotGiven("The gateway could not make a QR. Restarting the instance there often helps.")


async def _probe_at(pool: Pool, channel_id: UUID, at: datetime) -> None:
    async with pool.acquire() as connection:
        await probe_now(connection, channel_id, at)
