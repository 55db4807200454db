"""Checks whether a webhook carries the secret that was set with its address; refuses none.

Genuine events may lack it: a gateway's global webhook sends no headers, an instance's row keeps old ones when
only the address is set, and retries carry those of their first attempt. So a webhook without it is accepted,
and what it says of a session is confirmed by a probe at once.
docs/provider-facts.md#evolution-global-webhook, #evolution-webhook-row
"""

import hmac
from collections.abc import Iterable
from typing import Final

from db.ingest.entry import ParsedEvent
from db.registry.tokens import hash_token
from receiver.providers.report import SECRET_HEADER
from statemachine.model import Trigger

HEADER: Final = SECRET_HEADER.lower().encode()
CONFIRMED_TRIGGERS: Final = frozenset({Trigger.OPENED, Trigger.DROPPED, Trigger.UNPAIRED})
"""Triggers that open or resolve incidents; others are too many to confirm each by a probe."""


def carries_secret(headers: Iterable[tuple[bytes, bytes]], secret_hash: bytes | None) -> bool:
    """Return whether a webhook carries its address's secret; True for an address without one."""
    if secret_hash is None:
        return True
    given = next((value for name, value in headers if name == HEADER), b"")
    return hmac.compare_digest(hash_token(given.decode("latin-1")), secret_hash)


def unverified(event: ParsedEvent) -> ParsedEvent:
    """Return the event of a webhook without the secret, marked for confirmation."""
    return event._replace(needs_probe=True) if event.trigger in CONFIRMED_TRIGGERS else event
