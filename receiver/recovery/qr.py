"""Shows a channel's QR to whoever may scan it: the one that its gateway shows, or a fresh one.

A gateway is asked only for a channel that is known to need a scan: asking for a QR can end a session that
would have come back. What the gateway answers sets no state, and goes nowhere but to who asked.
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
"""After a QR was handed out the channel is probed this soon: somebody is about to scan it."""
NOT_YET_AGAIN: Final = timedelta(seconds=5)
"""When to come again for a QR that the gateway has begun to make."""
NEEDING: Final = frozenset({State.QR_PENDING, State.UNPAIRED})
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
    """There is no QR for this channel now; says why."""

    why: str
    is_connected: bool = False
    """The gateway says that no QR is needed any more; a probe will tell."""


@dataclass(frozen=True, slots=True)
class QrNotGiven:
    """The gateway was asked and gave none; says why, and when to ask again if that would help."""

    why: str
    again_in: timedelta | None = None


@dataclass(frozen=True, slots=True)
class QrTooSoon:
    """The gateway was asked only just now."""

    again_in: timedelta


async def show_qr(
    pool: Pool, vault: Vault, client: Client, channel_id: UUID, tenant_id: UUID | None, number: str | None
) -> QrShown | QrNotShown | QrNotGiven | QrTooSoon | None:
    """Return a channel's QR or why there is none; with a number a pairing code, too, where there are any.

    None: there is no such channel of this tenant.
    """
    now = datetime.now(UTC)
    async with pool.acquire() as connection:
        wanted = await qr_request(connection, channel_id, tenant_id, now)
    if wanted is None:
        return None
    if wanted.state not in NEEDING:
        reason = (
            f" {reason_text(wanted.reason, 'en')}" if wanted.state is State.ERROR and wanted.reason else ""
        )
        return QrNotShown(WHY_NOT[wanted.state] + reason)
    shown = _shown_by_gateway(vault, wanted) if number is None else None
    return shown or await _fetch(pool, vault, client, wanted, number)


def _shown_by_gateway(vault: Vault, wanted: QrRequest) -> QrShown | None:
    """Return the QR that a webhook told and that can still be scanned."""
    if wanted.state is not State.QR_PENDING or wanted.sealed is None or wanted.scanned_until is None:
        return None
    try:
        return QrShown(open_qr(vault, wanted.target.channel_id, wanted.sealed), wanted.scanned_until)
    except VaultError:
        return None


async def _fetch(
    pool: Pool, vault: Vault, client: Client, wanted: QrRequest, number: str | None
) -> QrShown | QrNotShown | QrNotGiven | QrTooSoon:
    target, provider = wanted.target, SCANNABLE.get(wanted.target.provider)
    if provider is None:
        return QrNotShown(f"{target.provider} has no QR that could be asked for here.")
    if wanted.paused:
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
    return await _told(pool, target.channel_id, provider, provider.read_qr(reply.status, reply.body))


async def _told(
    pool: Pool, channel_id: UUID, provider: Scannable, answer: Qr | NoQr
) -> QrShown | QrNotShown | QrNotGiven:
    now = datetime.now(UTC)
    match answer:
        case Qr():
            await _look(pool, channel_id, now + SCANNED_WITHIN)
            return QrShown(answer, now + provider.qr_life)
        case NoQr.CONNECTED:
            await _look(pool, channel_id, now)
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


async def _look(pool: Pool, channel_id: UUID, at: datetime) -> None:
    async with pool.acquire() as connection:
        await probe_now(connection, channel_id, at)
