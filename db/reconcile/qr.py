"""QRs that gateways show, sealed for as long as they can be scanned; calls no gateway.

A QR links any phone to the channel. So none is in an event, a log or in clear in a row.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import orjson

from db.codec.channel import reason_of, state_of
from db.connection.types import Connection
from db.queries import sql
from db.reconcile.claims import ProbeTarget
from db.vault import Vault
from statemachine.model import Reason, State

SHOWN_FOR: Final = timedelta(seconds=45)
"""How long a QR from a webhook is shown: docs/provider-facts.md#evolution-qr."""
ASKED_EVERY: Final = timedelta(seconds=5)
"""Between two requests for one channel's QR, by all replicas together: Evolution counts what it makes."""


@dataclass(frozen=True, slots=True)
class Qr:
    """What links a phone: the QR's content, its picture (a data URL), and a code to type instead."""

    code: str | None = field(default=None, repr=False)
    image: str | None = field(default=None, repr=False)
    pairing_code: str | None = field(default=None, repr=False)


class KeptQr(NamedTuple):
    """A sealed QR, when its gateway made it, and until when it can be scanned."""

    sealed: bytes
    issued_at: datetime
    expires_at: datetime


class QrRequest(NamedTuple):
    """A channel whose QR is requested: its target and status, and the QR that is shown, if one is."""

    target: ProbeTarget
    paused: bool
    state: State
    reason: Reason | None
    locale: str | None
    sealed: bytes | None
    scanned_until: datetime | None


def seal_qr(vault: Vault, channel_id: UUID, qr: Qr) -> bytes:
    """Return a channel's QR, sealed."""
    return vault.seal(orjson.dumps(qr), _identity(channel_id))


def open_qr(vault: Vault, channel_id: UUID, sealed: bytes) -> Qr:
    """Return a channel's QR; raise `VaultError`."""
    return Qr(**orjson.loads(vault.open(sealed, _identity(channel_id))))


async def qr_request(
    connection: Connection, channel_id: UUID, tenant_id: UUID | None, now: datetime
) -> QrRequest | None:
    """Return what is known for showing a channel's QR; None: no such channel of this tenant."""
    row = await connection.fetchrow(sql.qr_target, channel_id, tenant_id, now)
    if row is None:
        return None
    target = ProbeTarget(**{name: row[name] for name in ProbeTarget._fields})
    about = state_of(row["state"]), reason_of(row["reason"]), row["locale"]
    return QrRequest(target, row["paused"], *about, row["sealed"], row["scanned_until"])


async def claim_question(connection: Connection, channel_id: UUID, now: datetime) -> timedelta | None:
    """Claim the next request for a channel's QR; return None, or how long it is too early for one."""
    if await connection.fetchval(sql.claim_qr, channel_id, now, now - ASKED_EVERY) is not None:
        return None
    asked_at = await connection.fetchval(sql.qr_asked_at, channel_id)
    return (
        ASKED_EVERY if asked_at is None else min(max(asked_at + ASKED_EVERY - now, timedelta(0)), ASKED_EVERY)
    )


async def probe_now(connection: Connection, channel_id: UUID, now: datetime) -> None:
    """Make a channel's probe due, if it is probed at all."""
    await connection.execute(sql.probe_now, channel_id, now)


async def forget_qrs(connection: Connection, now: datetime) -> None:
    """Forget the QRs that can't be scanned any more."""
    await connection.execute(sql.forget_qrs, now, now - ASKED_EVERY)


def _identity(channel_id: UUID) -> str:
    return f"qr:{channel_id}"
