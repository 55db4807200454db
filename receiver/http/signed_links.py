"""Makes and verifies signed reconnect links, each for one channel and incident; knows no row and no page.

A link holds ids and a time, nothing secret. It is as good as a password for what the page allows: so none is
logged (`receiver.telemetry.logs`), and pages send no referrer.
"""

import hmac
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final, NamedTuple
from uuid import UUID

LIFE: Final = timedelta(hours=72)
"""How long a link works: a weekend, and the Monday after."""
_FORM: Final = struct.Struct(">B16s16sI")
_VERSION: Final = 1
_MAC_BYTES: Final = 20
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{76}", re.ASCII)
"""57 bytes in base64 fill 76 characters to the last bit, so each link can be written in one way only."""
_PURPOSE: Final = b"zapwatch reconnect link"


class ReconnectLink(NamedTuple):
    """The content of a link with a valid signature."""

    channel_id: UUID
    incident_id: UUID
    expires_at: datetime


class ReconnectLinks:
    """Signs links with the first key, and accepts those signed with any."""

    def __init__(self, keys: Sequence[bytes], base_url: str) -> None:
        # Derived keys: a link's key can't open what is encrypted with the original.
        self._keys: Final = [hmac.digest(key, _PURPOSE, sha256) for key in keys]
        self._base_url: Final = base_url

    def link_for(self, channel_id: UUID, incident_id: UUID, now: datetime) -> str:
        """Return the reconnect link of a channel and an incident."""
        expires_at = int((now + LIFE).timestamp())
        signed = _FORM.pack(_VERSION, channel_id.bytes, incident_id.bytes, expires_at)
        token = urlsafe_b64encode(signed + _mac(self._keys[0], signed)).decode()
        return f"{self._base_url}/reconnect/{token}"

    def read(self, token: str) -> ReconnectLink | None:
        """Return the content of a token, expired or not; None: its signature is invalid."""
        if _TOKEN.fullmatch(token) is None:
            return None
        whole = urlsafe_b64decode(token)
        signed, mac = whole[: _FORM.size], whole[_FORM.size :]
        known = [hmac.compare_digest(mac, _mac(key, signed)) for key in self._keys]
        version, channel, incident, expires_at = _FORM.unpack(signed)
        if not any(known) or version != _VERSION:
            return None
        return ReconnectLink(
            UUID(bytes=channel), UUID(bytes=incident), datetime.fromtimestamp(expires_at, UTC)
        )


def _mac(key: bytes, signed: bytes) -> bytes:
    return hmac.digest(key, signed, sha256)[:_MAC_BYTES]
